"""Files that are larger than the memory that reading them takes."""

import subprocess
import sys

import numpy as np

from tests.helpers.project import ROOT

ROWS, COLUMNS = 2**18, 1024  # 1 GiB of float32
PROGRAM = """
import re
from pathlib import Path
from data_loader.sources.arrays import Arrays
from data_loader.dataloader import DataLoader
loader = DataLoader(Arrays("x.npy", "y.npy"), 512, shuffle=True)
print(int(sum(batch["weight"].sum() for batch in loader.batches(1))))
# Not ru_maxrss: it begins with the memory of the process that started this one.
print(int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) // 1024)
"""


def test_reading_a_file_takes_memory_for_a_few_batches_only(tmp_path):
    for name, dtype, shape in (("x", np.float32, (ROWS, COLUMNS)), ("y", np.int32, (ROWS,))):
        np.lib.format.open_memmap(tmp_path / f"{name}.npy", "w+", dtype, shape)  # a sparse file
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(
        command, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    examples, mebibytes = map(int, done.stdout.split())
    assert examples == ROWS
    assert mebibytes < 300
