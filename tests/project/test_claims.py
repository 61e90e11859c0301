"""Each claim of the README has a command or a test that shows it, and that exists."""

import re

import pytest

from tests.helpers.project import ROOT

TESTS = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
NAMES = set(re.findall(r"^def (test_\w+)", TESTS, re.MULTILINE))


def rows(page, heading):
    """The rows of the first table under a heading: (claim, [what shows it])."""
    section = (ROOT / page).read_text(encoding="utf-8").partition(heading)[2]
    table = re.search(r"^\|.+\|\n\|[-|]+\|\n((?:\|.+\|\n)+)", section, re.MULTILINE)[1]
    cells = [line.strip("|").split("|") for line in table.splitlines()]
    return [(claim.strip(), re.findall(r"`([^`]+)`", shown)) for claim, shown in cells]


ROWS = [*rows("README.md", "## What is promised"), *rows("docs/claims.md", "# What is claimed")]


@pytest.mark.parametrize(("claim", "shown"), ROWS, ids=[claim for claim, _ in ROWS])
def test_a_claim_has_something_that_shows_it(claim, shown):
    assert shown
    for one in shown:
        if one.startswith("test_"):
            assert one in NAMES
            continue
        words = one.split()
        wanted = words[words.index("-k") + 1] if "-k" in words else ""
        assert any(wanted in name for name in NAMES)
        files = [word for word in words if "/" in word]
        assert files or wanted
        assert [file for file in files if not (ROOT / file).exists()] == []
