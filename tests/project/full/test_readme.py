"""Every example of the README and of docs/, as it is written there, on a smaller MNIST.

What a page says to write is written into a copy of the project, the page's own, and its commands
are run in it one after the other. A block begins with the name of its file; one of the kind
`console` shows what a command prints, `...` standing for anything.
"""

import csv
import json

import pytest

from tests.helpers import pages

TUTORIAL = "docs/tutorial.md"


def commands_of(page):
    """The commands of a page, without those that install."""
    return [one for one in pages.commands(page) if not one.line.startswith("pip ")]


TRIED = [page for page in pages.PAGES if page != TUTORIAL and commands_of(page)]


@pytest.mark.parametrize("page", TRIED)
def test_the_commands_of_a_page_work_as_shown(page, tmp_path, script):
    project = pages.make_project(tmp_path / "project", page)
    for command in commands_of(page):
        pages.check_command(command, project, script)


def test_the_tutorial_leads_to_a_network_that_knows_the_shapes(tmp_path, script):
    project = pages.make_project(tmp_path / "project", TUTORIAL)
    for command in commands_of(TUTORIAL):
        printed = pages.check_command(command, project, script)
        assert "WARNING" not in printed, printed
    report = json.loads((project / "inference/shapes/report.json").read_text())
    assert report["metadata"]["classes"] == ["circle", "square", "triangle"]
    assert report["metadata"]["inputs"]["input"]["shape"][1:] == [3, 64, 64]
    done = script("inference/predict.py", "--name", "shapes", "pictures/square", cwd=project)
    assert done.returncode == 0, done.stderr
    with open(project / "predictions.csv", newline="") as file:
        predicted = [line["prediction"] for line in csv.DictReader(file)]
    assert len(predicted) == 200
    assert predicted.count("square") > 160
