"""StableHLO files of others: without calls of the machine's code, and tried in another process.

What reads and compiles them trusts them: a file that is damaged, or made for it, ends the process.
"""

import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np

from utils import ROOT, UserError

# What leaves the program: code of this machine, and what waits for another. The first is allowed
# where JAX itself replaces it: the comparison of the sizes of arrays.
LEAVES = re.compile(r"\b\w+\.(custom_call(?! @shape_assertion\()|infeed|outfeed|send|recv)\b")
TIMED = (1, 64)  # batches whose latency is measured
# Without the optimisations that take nine tenths of the time that a batch size takes to compile.
QUICK = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
    "xla_cpu_use_fusion_emitters": False,
    "xla_cpu_parallel_codegen_split_count": 1,
}
PATIENCE = 120  # seconds to read, compile and run a file


def read(path, own=False):
    """Returns the `jax.export.Exported` of a .stablehlo file, and its function, compiled.

    Args:
        path: the file.
        own: whether this process has made it; else it is tried first.

    Raises:
        UserError: it has custom calls, or ends the process that tries it.
    """
    if not own:
        _try(path)
    exported = jax.export.deserialize(bytearray(Path(path).read_bytes()))
    if found := LEAVES.search(exported.mlir_module()):
        raise UserError(
            f"{path}: has an operator {found[1]}, which may run anything on this machine; expected "
            "a file as inference/convert_tflite.py writes it"
        )
    if not own:
        return exported, jax.jit(exported.call)
    sizes = {one.shape[0] for one in exported.in_avals if one.shape}
    return exported, compiled(exported.call, *(one for one in sizes if isinstance(one, int)))


def compiled(function, static=None):
    """Returns a jitted function of batches, for comparisons: it compiles the timed sizes with care.

    Args:
        function: `(*inputs) -> outputs`, the batch first in each.
        static: the only batch size, or None for any.
    """
    careful, quick = jax.jit(function), jax.jit(function, compiler_options=QUICK)
    timed = (static,) if static else TIMED

    def run(*inputs):
        if isinstance(inputs[0], jax.core.Tracer):  # options are for what is not in another jit
            return function(*inputs)
        return (careful if inputs[0].shape[0] in timed else quick)(*inputs)

    return run


def _try(path):
    """Reads, compiles and runs a file in a process of its own, which it must not end."""
    command = [sys.executable, "-m", __name__, str(Path(path).resolve())]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        raise UserError(
            f"{path}: not run within {PATIENCE} s; it is damaged, or too large"
        ) from None
    if done.returncode < 0:
        raise UserError(f"{path}: ends its runtime (signal {-done.returncode}); it is damaged")


def main(path):
    """Runs a file on inputs of zeros; of what is wrong in Python the caller hears itself."""
    exported, function = read(path, own=True)
    shapes = [
        (*(size if isinstance(size, int) else 1 for size in one.shape),)
        for one in exported.in_avals
    ]
    inputs = [
        np.zeros(shape, one.dtype) for shape, one in zip(shapes, exported.in_avals, strict=True)
    ]
    jax.block_until_ready(function(*inputs))


if __name__ == "__main__":
    main(sys.argv[1])
