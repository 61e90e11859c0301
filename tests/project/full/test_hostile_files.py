"""Files that somebody else has made, of each kind: each is used, or refused in words."""

import pytest

from benchmarks.hostile import MEMORY, measure
from tests.helpers.hostile import KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_hostile_files_are_used_or_refused_in_words(kind):
    """A twentieth of what the benchmark tries, in a process of its own."""
    count = KINDS[kind].count // 20
    ends, _, memory, faults = measure(kind, count)
    assert faults == []
    assert ends.keys() <= {"used", "refused"}
    assert sum(ends.values()) == count
    assert ends.get("refused", 0) > count // 4 or kind == "lines"  # of which the rest is used
    assert memory < MEMORY
