"""The README and the pages of docs/: their examples and commands, and projects to try them in."""

import glob
import re
import shlex
import subprocess
from itertools import chain
from typing import NamedTuple

from tests.helpers.copies import copy_project, set_quick
from tests.helpers.project import ROOT

LANGUAGES = ("bash", "console", "js", "json", "python")  # js: see test_recipes.py


class Command(NamedTuple):
    """A line to type, and the lines that a page shows of what it prints."""

    line: str
    shown: list


def read_pages():
    """The text of each page by its name."""
    return {
        str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
        for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    }


PAGES = read_pages()


def blocks(page):
    """The blocks of a page: (language, text)."""
    return re.findall(r"^```(\w*)\n(.*?)^```", PAGES[page], re.DOTALL | re.MULTILINE)


def commands(page):
    """The Commands of a page."""
    for language, text in blocks(page):
        text = re.sub(r"\\\n|\n(?= )", " ", text) if language == "bash" else text
        if language == "bash":
            yield from (
                Command(line.partition("   #")[0].strip(), []) for line in text.splitlines()
            )
        if language == "console":
            for part in text.removeprefix("$ ").split("\n$ "):
                line, *shown = part.splitlines()
                yield Command(line, shown)


def make_project(folder, page):
    """A copy of the project with fewer digits, and with what a page says to write.

    The sample's network is smaller, unless the page shows the number of its parameters.
    """
    copy_project(folder)
    set_quick(folder, small="13810 parameters" not in PAGES[page])
    for language, text in blocks(page):
        first, _, rest = text.partition("\n")
        path = folder / first.lstrip("#/ ")
        if language == "json":
            path.write_text(rest)
        if language == "python":
            path.write_text(f"{path.read_text()}\n\n{rest}" if path.exists() else rest)
    return folder


def type_in(command, folder, script):
    """Runs a command as if it had been typed into a shell; returns what it did."""
    if sourced := re.fullmatch(r"source <\((.+)\)", command):
        done = type_in(sourced[1], folder, script)
        bash = {"cwd": folder, "input": done.stdout, "capture_output": True, "text": True}
        return done if done.returncode else subprocess.run(["bash"], **bash)
    words = shlex.split(command)
    assert words[0] == "python"
    found = [sorted(glob.glob(word, root_dir=folder)) or [word] for word in words[1:]]
    return script(*chain(*found), cwd=folder)


def check_command(command, folder, script):
    """Runs a Command, compares what it prints with what the page shows, and returns it."""
    done = type_in(command.line, folder, script)
    printed = f"{command.line}\n{done.stdout}{done.stderr}"
    fails = any(line.startswith("error: ") for line in command.shown)
    assert (done.returncode != 0) == fails, printed
    assert "Traceback" not in printed, printed
    shown = ".*".join(re.escape(line).replace(r"\.\.\.", ".*") for line in command.shown)
    assert re.search(shown, printed, re.DOTALL), printed
    return printed
