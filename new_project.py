"""Makes a project of your own, beside this one.

python new_project.py ../my_project
python new_project.py ../my_project --title "Cats and dogs" --with data examples
python new_project.py ../my_project --minimal

Copies what a project needs, and `examples/starter`, which is to be edited. Runs, exports and the
git history are not copied, nor is what `--with` does not name. `--minimal` also leaves out the
optional folders: export, reports, sweeps, debugging, and the record of what a run was made from.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import utils
from training.config import read_config

PARTS = (
    ".dockerignore", ".github/workflows", ".gitignore", ".pre-commit-config.yaml", "Dockerfile",
    "LICENSE", "data_loader", "inference", "logger_config.json", "model", "pyproject.toml",
    "requirements.txt", "requirements-cuda.txt", "requirements-tpu.txt", "saved/README.md",
    "test.py", "train.py", "training", "utils.py",
)  # fmt: skip
ON_REQUEST = ("benchmarks", "data", "docs", "examples")
OPTIONAL = (
    "data_loader/inspect", "data_loader/sources", "inference", "model/zoo", "training/debug",
    "training/provenance", "training/report", "training/sweep", "training/weights",
)  # fmt: skip
STARTER = utils.ROOT / "examples" / "starter"
# Which a new project needs for its tests.
TOOLS = ("pytest", "ruff", "pyrefly", "pre-commit", "codespell")
REPORT_PACKAGES = ("jinja2",)  # what only the optional folders of training/ import


@utils.command
def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    options = parse_arguments(argv)
    make_project(Path(options.folder), options.title, options.wanted, options.minimal)
    print(f"Made {options.folder}. Its README says what to edit first; try it:\n")
    print(f"    cd {options.folder} && python train.py && python -m pytest")


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Returns the command line's options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", help="of the new project; must be new or empty")
    parser.add_argument("--title", help="names its runs; default: the folder's name")
    parser.add_argument("--minimal", action="store_true", help="leave out the optional folders")
    parser.add_argument(
        "--with", nargs="+", default=[], choices=ON_REQUEST, dest="wanted", metavar="PART",
        help=f"what else to copy: {', '.join(ON_REQUEST)} (the data are the sample's, MNIST)",
    )  # fmt: skip
    return parser.parse_args(argv)


def make_project(
    folder: Path, title: str | None = None, wanted: Iterable[str] = (), minimal: bool = False
) -> None:
    """Makes the project.

    Args:
        folder: Path of the new project.
        title: of its runs; None: the folder's name.
        wanted: which of ON_REQUEST to copy as well.
        minimal: leave out OPTIONAL and the packages that only these need.

    Raises:
        UserError: the folder exists, is within this project or cannot be written, or the title is
            not valid.
    """
    target = folder.resolve()
    title = title or target.name
    if target.is_relative_to(utils.ROOT):
        raise utils.UserError(f"{folder}: is within this project; expected a place beside it")
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise utils.UserError(f"{folder}: exists already; expected a new or an empty folder")
    try:
        read_config(STARTER / "config.json", [f"title={json.dumps(title)}"])
    except utils.UserError:
        raise utils.UserError(
            f"--title: {title!r} cannot name a folder; expected letters, digits, spaces, _, -, . "
            "and +, a letter or a digit first"
        ) from None
    left_out = {utils.ROOT / name for name in OPTIONAL if minimal}
    try:
        present = [part for part in PARTS if (utils.ROOT / part).exists()]  # all, unless removed
        for part in (*present, *wanted):
            _copy(part, target, left_out)
        shutil.copytree(STARTER, target, ignore=_ignore(), dirs_exist_ok=True)
        _fill_in(target, title)
        if minimal:
            _trim(target)
    except OSError as error:
        raise utils.UserError(f"{folder}: cannot write there: {error}") from None
    _git_init(target)


def _copy(part, target, left_out):
    source, copy = utils.ROOT / part, target / part
    if source in left_out:
        return
    copy.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, copy, ignore=_ignore(left_out))
    else:
        shutil.copy2(source, copy)


def _ignore(left_out=()):
    """Returns what `copytree` asks for names to leave out: also caches and exports."""

    def ignore(folder, names):
        return [name for name in names if _is_left_out(Path(folder) / name)]

    def _is_left_out(path):
        exports = path.parent == utils.ROOT / "inference" and (
            path.suffix == ".log" or (path.is_dir() and not (path / "__init__.py").exists())
        )
        return exports or path.name == "__pycache__" or path in left_out

    return ignore


def _fill_in(target, title):
    """Writes the title, the schema's path, and the tools for the tests."""
    for name in ("config.json", "README.md"):
        path = target / name
        text = path.read_text(encoding="utf-8").replace("My_Project", title)
        path.write_text(text.replace("../../training/", "training/"), encoding="utf-8")
    pins = (utils.ROOT / "requirements-dev.txt").read_text(encoding="utf-8").splitlines()
    kept = [pin for pin in pins if pin.partition("==")[0] in TOOLS]
    text = "\n".join(["# What the tests need besides.", "-r requirements.txt", *kept])
    (target / "requirements-dev.txt").write_text(text + "\n", encoding="utf-8")
    settings = target / "pyproject.toml"
    tables = re.split(r"\n(?=\[)", settings.read_text(encoding="utf-8"))
    name = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
    tables = [re.sub(r'^name = ".*"', f'name = "{name}"', one, flags=re.M) for one in tables]
    kept = [table for table in tables if "importlinter" not in table]  # those contracts are ours
    text = re.sub(r"^dictionary = .*\n", "", "\n".join(kept), flags=re.M)  # so are those words
    settings.write_text(text, encoding="utf-8")


def _trim(target):
    """Removes what only the optional folders need: packages and instructions."""
    requirements, readme = target / "requirements.txt", target / "README.md"
    text = requirements.read_text(encoding="utf-8").partition("# What inference/ needs")[0]
    text = text.replace("train.py, test.py and inference/ need", "train.py and test.py need")
    pins = [line for line in text.splitlines() if line.partition("==")[0] not in REPORT_PACKAGES]
    requirements.write_text("\n".join(pins) + "\n", encoding="utf-8")
    paragraphs = readme.read_text(encoding="utf-8").split("\n\n")
    kept = [one for one in paragraphs if not re.search(r"inference/|--check|report\.html", one)]
    readme.write_text("\n\n".join(kept).rstrip() + "\n", encoding="utf-8")


def _git_init(target):
    try:
        subprocess.run(["git", "init", "--quiet", str(target)], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"warning: made no git repository: {error}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
