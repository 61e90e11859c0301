"""The requirements for accelerators name the same JAX, and can be installed with all the others."""

import subprocess
import sys

import pytest
from packaging.requirements import Requirement

from tests.helpers.project import ROOT

FILES = ("requirements-cuda.txt", "requirements-tpu.txt")


def pip(*arguments):
    command = [sys.executable, "-m", "pip", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)


def pins(name):
    lines = (ROOT / name).read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


@pytest.mark.parametrize("name", FILES)
def test_the_jax_is_that_of_the_cpu_and_the_rest_too(name):
    rest, jax = pins(name)
    (pinned,) = (line for line in pins("requirements.txt") if line.startswith("jax=="))
    assert rest == "-r requirements.txt"
    assert jax.partition("[")[0] + jax.partition("]")[2] == pinned


def test_all_that_is_pinned_can_be_installed_together():
    if pip("index", "versions", "jax", "--quiet").returncode:
        pytest.skip("no package index is reached")
    files = [part for name in (*FILES, "requirements-dev.txt") for part in ("-r", name)]
    done = pip("install", "--dry-run", "--quiet", *files)
    assert done.returncode == 0, done.stdout + done.stderr


LINUX = [
    f"manylinux{tag}_x86_64" for tag in ("1", "2014", "_2_17", "_2_27", "_2_28")
]  # what a machine of the last years can install


@pytest.mark.parametrize("python", ["3.14"])  # the others: see the matrix of .github/workflows
def test_every_supported_python_finds_wheels_of_all_that_is_pinned_for_it(python, tmp_path):
    if pip("index", "versions", "jax", "--quiet").returncode:
        pytest.skip("no package index is reached")
    lines = [line for name in ("requirements.txt", "requirements-dev.txt") for line in pins(name)]
    marked = tmp_path / "pins.txt"  # pip judges the markers by the Python that it runs on
    marked.write_text("\n".join(kept for line in lines if (kept := pin_for(line, python))))
    platforms = [part for tag in LINUX for part in ("--platform", tag)]
    done = pip(
        "install", "--dry-run", "--quiet", "--only-binary=:all:", "--implementation", "cp",
        "--python-version", python, *platforms, "--target", tmp_path / "none", "-r", marked,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def pin_for(line, python):
    """Returns a line of a requirements file without its marker, or None where that rules it out."""
    if line.startswith("-r"):
        return None
    pin = Requirement(line)
    if pin.marker and not pin.marker.evaluate({"python_version": python}):
        return None
    return f"{pin.name}{pin.specifier}"
