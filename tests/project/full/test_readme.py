"""Every example of the README and of docs/, as it is written there, on a smaller MNIST.

What a page says to write is written into a copy of the project, the page's own, and its commands
are run in it one after the other. A block begins with the name of its file; one of the kind
`console` shows what a command prints, `...` standing for anything.
"""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from tests.helpers import pages


@pytest.mark.parametrize("page", [page for page in pages.PAGES if page != pages.OWN_PICTURES])
def test_the_commands_of_a_page_work_as_shown(page, tmp_path, script):
    project = pages.make_project(tmp_path / "project", page)
    tried = [one for one in pages.commands(page) if not one.line.startswith("pip ")]
    for command in tried:
        pages.check_command(command, project, script)
    assert tried


def test_own_pictures_take_three_commands_and_one_edited_file(tmp_path, script):
    project = pages.make_project(tmp_path / "project", pages.OWN_PICTURES)
    paint(project / "pictures")
    written = [
        text
        for language, text in pages.blocks(pages.OWN_PICTURES)
        if language in ("json", "python")
    ]
    assert len(written) == 1
    assert written[0].startswith("// config.json\n")
    install, train, export = (command.line for command in pages.commands(pages.OWN_PICTURES))
    assert install == "pip install -r requirements.txt"
    for command in (train, export):
        done = pages.type_in(command, project, script)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "WARNING" not in done.stdout
    (export,) = (path.parent for path in (project / "inference").glob("*/report.json"))
    report = json.loads((export / "report.json").read_text())
    assert report["metadata"]["classes"] == ["checks", "columns", "rows"]
    assert report["metadata"]["inputs"]["input"]["shape"][1:] == [3, 64, 64]
    done = script("inference/predict.py", "--name", export.name, "pictures/rows", cwd=project)
    assert done.returncode == 0, done.stderr
    with open(project / "predictions.csv", newline="") as file:
        predicted = [line["prediction"] for line in csv.DictReader(file)]
    assert predicted.count("rows") > 0.8 * len(predicted) > 0


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
