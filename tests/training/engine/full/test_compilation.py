"""The cache of compiled functions, which several processes share."""

import pytest

from tests.helpers.python_process import python

PROGRAM = """
import os, sys, time
from pathlib import Path
import jax
from training.engine.compilation import use_compilation_cache

def twice(x):
    return 2 * x + 1

os.environ["XDG_CACHE_HOME"] = sys.argv[1]
use_compilation_cache()
jax.jit(twice)(1.0)
(entry,) = Path(sys.argv[1]).rglob("jit_twice-*-cache")
other = entry.with_name("jit_other-0-cache")
other.write_bytes(b"of another process")
size = entry.stat().st_size
os.truncate(entry, size // 2)
then = time.time() + float(sys.argv[2])
os.utime(entry, (then, then))
jax.clear_caches()
assert jax.jit(twice)(1.0) == 3
print("whole" if entry.stat().st_size > 0.9 * size else "cut", other.exists())
"""


@pytest.mark.parametrize(
    ("seconds", "expected"), [(-3600, "whole"), (3600, "whole"), (0, "cut")]
)  # long ago, by a clock that was wrong, and by a process that may be writing it now
def test_a_damaged_entry_is_replaced_unless_it_is_being_written(tmp_path, seconds, expected):
    assert python(PROGRAM, tmp_path, seconds).split() == [expected, "True"]
