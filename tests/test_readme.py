"""Every example of the README, as it stands there, on a smaller MNIST."""

import json
import re
import shlex
import shutil

import pytest
from conftest import ROOT, write_mnist

PARTS = ("data_loader", "examples", "model", "training")
FILES = (
    "train.py", "test.py", "utils.py", "new_project.py", "config.json", "logger_config.json",
    "pyproject.toml", "requirements.txt", "requirements-dev.txt", "LICENSE", ".gitignore",
    ".ci/run", "saved/README.md",
)  # fmt: skip
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(bash|python|json)\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy of the project with fewer digits, and with what the README says to write."""
    folder = tmp_path_factory.mktemp("project")
    for name in PARTS:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "inference").mkdir()  # without exports that lie there
    for name in (*FILES, *(ROOT / "inference").glob("*.*")):
        path = folder / (ROOT / name).relative_to(ROOT)
        path.parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, path)
    write_mnist(folder / "data", train=1024, test=1000)
    for language, text in BLOCKS:
        if language != "bash":
            first, _, rest = text.partition("\n")
            path = folder / first.lstrip("#/ ")
            path.write_text((path.read_text() if path.exists() else "") + "\n\n" + rest)
    return folder


def commands():
    for language, text in BLOCKS:
        if language == "bash":
            for line in re.sub(r"\\\n|\n(?= )", " ", text).splitlines():
                yield line.partition("   #")[0].strip()


@pytest.mark.parametrize("command", [c for c in commands() if not c.startswith("pip ")])
def test_a_command_of_the_readme_works(command, project, script):
    words = shlex.split(command)
    assert words[0] == "python"
    done = script(*words[1:], cwd=project)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_the_first_two_lines_install_train_and_test():
    first, second = (c for c in commands() if c.startswith("pip "))
    assert first == "pip install -r requirements.txt && python train.py -c config.json"
    assert second == "pip install -r requirements-dev.txt && python -m pytest"
    assert second in (ROOT / ".ci" / "run").read_text().replace(" --quiet", "")


def test_the_files_that_the_readme_links_to_exist():
    for target in re.findall(r"\]\(([^)]+)\)", README):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target


def test_the_config_shown_is_json_apart_from_its_heading():
    shown = [text.partition("\n")[2] for language, text in BLOCKS if language == "json"]
    assert all(isinstance(json.loads(text), dict) for text in shown)
