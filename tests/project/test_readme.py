"""Every example of the README and of docs/, as it stands there, on a smaller MNIST.

What a page says to write is written into a copy of the project, the page's own, and its commands
are run in it one after the other. A block begins with the name of its file; one of the kind
`console` shows what a command prints, `...` standing for anything.
"""

import csv
import functools
import glob
import json
import re
import shlex
from itertools import chain
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from tests.helpers.copies import copy_project
from tests.helpers.project import ROOT

OWN_PICTURES = "## Your own pictures"  # the README's section that edits config.json: a page apart
LANGUAGES = ("bash", "console", "json", "python")


class Command(NamedTuple):
    """A line to type, and the lines that a page shows of what it prints."""

    line: str
    shown: list


def read_pages():
    """The text of each page by its name."""
    pages = {
        str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
        for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
    }
    before, heading, rest = pages["README.md"].partition(OWN_PICTURES)
    section, following, rest = rest.partition("\n## ")
    pages["README.md"] = before + following + rest
    pages[OWN_PICTURES] = heading + section
    return pages


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
    """A copy of the project with fewer digits, and with what a page says to write."""
    copy_project(folder)
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
    words = shlex.split(command)
    assert words[0] == "python"
    found = [sorted(glob.glob(word, root_dir=folder)) or [word] for word in words[1:]]
    return script(*chain(*found), cwd=folder)


def paint(folder, per_class=60):
    """Paints pictures of three patterns, of all sizes and colours, PNG and JPEG."""
    random = np.random.default_rng(0)
    for pattern in ("checks", "columns", "rows"):
        (folder / pattern).mkdir(parents=True)
        for number in range(per_class):
            size = random.integers(50, 120, 2)
            rows, columns = np.indices(size) // random.integers(6, 12)
            stripe = {"checks": rows + columns, "columns": columns, "rows": rows}[pattern] % 2
            picture = random.integers(0, 256, (2, 3), np.uint8)[stripe]
            ending = ("png", "jpg")[number % 2]
            Image.fromarray(picture).save(folder / pattern / f"{number}.{ending}")


@pytest.fixture(scope="module")
def project_of(tmp_path_factory):
    """The copy of the project that belongs to a page."""
    return functools.cache(
        lambda page: make_project(tmp_path_factory.mktemp("page") / "project", page)
    )


RUN = [
    (page, command)
    for page in PAGES
    for command in commands(page)
    if page != OWN_PICTURES and not command.line.startswith("pip ")
]


@pytest.mark.parametrize(("page", "command"), RUN, ids=[f"{page}: {one.line}" for page, one in RUN])
def test_a_command_works_as_shown(page, command, project_of, script):
    done = type_in(command.line, project_of(page), script)
    printed = done.stdout + done.stderr
    fails = any(line.startswith("error: ") for line in command.shown)
    assert (done.returncode != 0) == fails, printed
    assert "Traceback" not in printed
    shown = ".*".join(re.escape(line).replace(r"\.\.\.", ".*") for line in command.shown)
    assert re.search(shown, printed, re.DOTALL), printed


def test_own_pictures_take_three_commands_and_one_edited_file(tmp_path, script):
    project = make_project(tmp_path / "project", OWN_PICTURES)
    paint(project / "pictures")
    written = [text for language, text in blocks(OWN_PICTURES) if language in ("json", "python")]
    assert len(written) == 1
    assert written[0].startswith("// config.json\n")
    install, train, export = (command.line for command in commands(OWN_PICTURES))
    assert install == "pip install -r requirements.txt"
    for command in (train, export):
        done = type_in(command, project, script)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "WARNING" not in done.stdout
    (export,) = (path for path in (project / "inference").iterdir() if path.is_dir())
    report = json.loads((export / "report.json").read_text())
    assert report["metadata"]["classes"] == ["checks", "columns", "rows"]
    assert report["metadata"]["inputs"]["input"]["shape"][1:] == [3, 64, 64]
    done = script("inference/predict.py", "--name", export.name, "pictures/rows", cwd=project)
    assert done.returncode == 0, done.stderr
    with open(project / "predictions.csv", newline="") as file:
        predicted = [line["prediction"] for line in csv.DictReader(file)]
    assert predicted.count("rows") > 0.8 * len(predicted) > 0


def test_the_first_two_lines_install_train_and_test():
    first, second = (c.line for c in commands("README.md") if c.line.startswith("pip "))
    assert first == "pip install -r requirements.txt && python train.py -c config.json"
    assert second == "pip install -r requirements-dev.txt && python -m pytest"
    assert second in (ROOT / ".ci" / "run").read_text().replace(" --quiet", "")


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_links_to_exists(page):
    here = ROOT / (page if page.endswith(".md") else "README.md")
    for target in re.findall(r"\]\(([^)]+)\)", PAGES[page]):
        file, _, heading = target.partition("#")
        path = here.parent / file if file else here
        if target.startswith("http"):
            continue
        assert path.exists(), target
        headings = re.findall(r"^#+ (.+)", path.read_text() if heading else "", re.MULTILINE)
        assert not heading or heading in [one.lower().replace(" ", "-") for one in headings], target


def test_the_configs_shown_are_json_apart_from_their_heading():
    shown = [text for page in PAGES for language, text in blocks(page) if language == "json"]
    assert all(isinstance(json.loads(text.partition("\n")[2]), dict) for text in shown)


def test_blocks_are_of_the_kinds_that_are_tried():
    assert {language for page in PAGES for language, _ in blocks(page)} <= {*LANGUAGES, ""}
