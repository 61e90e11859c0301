"""The cache of compiled functions, which several processes share."""

import platform

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


ALLOCATING = """
import resource, statistics
import jax, jax.numpy as jnp
from training.engine.compilation import keep_freed_memory
if {keep}:
    keep_freed_memory()
add, x = jax.jit(lambda x: x + 1), jnp.zeros(2**24)
pages = []
for _ in range(60):
    jax.block_until_ready(add(x))
    pages.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
print(int(statistics.median(after - before for before, after in zip(pages[20:], pages[21:]))))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_an_array_of_64_mib_takes_new_pages_from_linux_unless_freed_memory_is_kept():
    def new_pages(keep):
        return int(python(ALLOCATING.format(keep=keep)))

    assert new_pages(False) > 16_000  # of 4 KiB
    assert new_pages(True) < 100
