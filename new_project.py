"""Begins a project of your own, beside this one.

python new_project.py ../my_project
python new_project.py ../my_project --title "Cats and dogs" --with data examples

Copies what a project needs and `examples/starter`, to be edited; leaves behind runs, exports, the
git history, and what `--with` does not ask for.
"""

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import utils
from training.config import read_config

PARTS = (
    ".ci", ".github", ".gitignore", ".pre-commit-config.yaml", "LICENSE", "data_loader",
    "inference", "logger_config.json", "model", "pyproject.toml", "requirements.txt",
    "saved/README.md", "test.py", "train.py", "training", "utils.py",
)  # fmt: skip
ON_REQUEST = ("benchmarks", "data", "docs", "examples")
STARTER = utils.ROOT / "examples" / "starter"
TOOLS = ("pytest", "ruff", "pyrefly", "pre-commit")  # which a new project needs for its tests


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    options = parse_arguments(argv)
    try:
        begin(Path(options.folder), options.title, options.wanted)
    except utils.UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{options.folder} is there. Its README tells what to edit first; try it:\n")
    print(f"    cd {options.folder} && python train.py && python -m pytest")
    return 0


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Returns the command line's options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", help="of the new project; must be new or empty")
    parser.add_argument("--title", help="names its runs; by itself the folder's name")
    parser.add_argument(
        "--with", nargs="+", default=[], choices=ON_REQUEST, dest="wanted", metavar="PART",
        help=f"what else to copy: {', '.join(ON_REQUEST)} (the data are the sample's, MNIST)",
    )  # fmt: skip
    return parser.parse_args(argv)


def begin(folder: Path, title: str | None = None, wanted: Iterable[str] = ()) -> None:
    """Makes the project.

    Args:
        folder: Path of the new project.
        title: of its runs; None: the folder's name.
        wanted: of ON_REQUEST, what to copy as well.

    Raises:
        UserError: the folder is taken, lies within this project or cannot be written, or the
            title is none.
    """
    target = folder.resolve()
    title = title or target.name
    if target.is_relative_to(utils.ROOT):
        raise utils.UserError(f"{folder}: lies within this project; expected a place beside it")
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise utils.UserError(f"{folder}: is there already; expected a new or an empty folder")
    try:
        read_config(STARTER / "config.json", [f"title={json.dumps(title)}"])
    except utils.UserError:
        raise utils.UserError(
            f"--title: {title!r} cannot name a folder; expected letters, digits, spaces, _, -, . "
            "and +, a letter or a digit first"
        ) from None
    try:
        there = [part for part in PARTS if (utils.ROOT / part).exists()]  # all, unless removed
        for part in (*there, *wanted):
            _copy(part, target)
        shutil.copytree(STARTER, target, ignore=_ignored, dirs_exist_ok=True)
        _fill_in(target, title)
    except OSError as error:
        raise utils.UserError(f"{folder}: cannot write there: {error}") from None
    _git_init(target)


def _copy(part, target):
    source, copy = utils.ROOT / part, target / part
    copy.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        shutil.copytree(source, copy, ignore=_ignored)
    else:
        shutil.copy2(source, copy)


def _ignored(folder, names):
    """What is not copied: caches, and in inference/ everything that was exported."""
    exports = [name for name in names if (Path(folder) / name).is_dir() or name.endswith(".log")]
    inside = exports if Path(folder) == utils.ROOT / "inference" else []
    return [name for name in names if name == "__pycache__" or name in inside]


def _fill_in(target, title):
    """Sets the title, the schema's place and the tools that the tests need."""
    for name in ("config.json", "README.md"):
        path = target / name
        text = path.read_text(encoding="utf-8").replace("My_Project", title)
        path.write_text(text.replace("../../training/", "training/"), encoding="utf-8")
    pins = (utils.ROOT / "requirements-dev.txt").read_text(encoding="utf-8").splitlines()
    kept = [pin for pin in pins if pin.partition("==")[0] in TOOLS]
    text = "\n".join(["# What the tests need besides.", "-r requirements.txt", *kept])
    (target / "requirements-dev.txt").write_text(text + "\n", encoding="utf-8")


def _git_init(target):
    try:
        subprocess.run(["git", "init", "--quiet", str(target)], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"warning: no git repository was made: {error}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
