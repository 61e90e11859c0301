"""The README and docs/ hold together, and a few of their commands work as shown.

The full set runs all of them.
"""

import json
import re

import pytest

from tests.helpers.pages import LANGUAGES, PAGES, blocks, check_command, commands, make_project
from tests.helpers.project import ROOT, by_set

COMMANDS = (  # that need no other before them; the first two also need little time
    ("README.md", "python new_project.py ../my_project"),
    ("docs/failed_run.md", "python train.py model.name=mnist_modl"),
    ("docs/transforms.md", "my_transforms:blank"),
    ("docs/loss_metric_optimizer.md", "sign_descent"),
)


@pytest.mark.parametrize(("page", "part"), by_set(COMMANDS[:2], COMMANDS))
def test_a_command_works_as_shown(page, part, tmp_path, script):
    (command,) = (one for one in commands(page) if part in one.line)
    check_command(command, make_project(tmp_path / "project", page), script)


def test_the_first_two_lines_install_train_and_test():
    first, second = (c.line for c in commands("README.md") if c.line.startswith("pip "))
    assert first == "pip install -r requirements.txt && python train.py -c config.json"
    assert second == "pip install -r requirements-dev.txt && python -m pytest"
    assert second in (ROOT / ".ci" / "run").read_text().replace(" --quiet", "")


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_links_to_exists(page):
    here = ROOT / page
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


NAMING = [
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/*.md", "examples/**/*.md", "benchmarks/*.md")
    for path in sorted(ROOT.glob(pattern))
    if path.name not in ("CHANGELOG.md", "coming_from_elsewhere.md")  # name others' files, too
]


@pytest.mark.parametrize("page", NAMING)
def test_the_files_and_modules_that_a_page_names_exist(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    kinds = "benchmarks|data_loader|docs|examples|inference|model|tests|training"
    paths = re.findall(rf"(?<![\w/])(?:{kinds})/[\w/.]*\.(?:py|md|json|jinja)\b", text)
    homes = (ROOT, (ROOT / page).parent)
    unknown = [one for one in paths if not any((home / one).exists() for home in homes)]
    exports = ("inference/jax_mnist/", "inference/digits/", "inference/shapes/")
    assert [one for one in unknown if not one.startswith(exports)] == []
    modules = re.findall(r"python -m ((?:training|inference)\.[\w.]*\w)", " ".join(text.split()))
    names = [
        f"{name.replace('.', '/')}{end}" for name in modules for end in (".py", "/__main__.py")
    ]
    assert sum((ROOT / name).exists() for name in names) == len(modules), modules


def test_the_readme_is_short_and_its_pictures_are_small():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 250
    shown = {*re.findall(r"docs/images/[\w.-]+\.(?:png|svg)", text)}
    assert len(shown) == 5
    assert sum((ROOT / one).stat().st_size for one in shown) <= 600_000
