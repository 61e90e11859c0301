"""The requirements for accelerators name the same JAX, and can be installed with all the others."""

import subprocess
import sys

import pytest

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
