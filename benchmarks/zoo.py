"""Imports networks of full size from their originals' names.

    python tests/fixtures/zoo/make.py --full FOLDER     # where PyTorch is
    python benchmarks/zoo.py FOLDER [NAME ...]

Prints a line for each network: its parameters, the largest error as a share of the largest output,
the seconds to import its file, and those over the seconds to read the file.
"""

import functools
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax
import numpy as np

from tests.helpers.zoo import FULL
from training.common.trees import named_leaves
from training.config import Named, Pretrained
from training.engine.pretrained import fill, read_weights
from utils import resolve


def main(folder, names):
    """Prints a line for each network of a folder."""
    for name in names or FULL:
        function, hyper = FULL[name]
        model = Named(name=f"model.zoo.{function}", args=hyper)
        network = functools.partial(resolve(model.name, [], "benchmark"), **hyper)
        path = folder / f"{name}.safetensors"
        begin = time.perf_counter()
        size = len(path.read_bytes())
        read = time.perf_counter() - begin
        proof = np.load(folder / f"{name}.npz")
        x, wanted = proof["inputs"], proof["outputs"]
        _, template = jax.eval_shape(lambda x, f=network: f(x, key=jax.random.key(0)), x)
        begin = time.perf_counter()
        params = fill(template, read_weights(model, Pretrained(path=str(path)), template))
        params = jax.block_until_ready(params)
        seconds = time.perf_counter() - begin
        y, _ = jax.jit(lambda params, x, f=network: f(x, params=params))(params, x)
        sizes = {key: one.size for key, one in named_leaves(params).items() if "stats" not in key}
        error = np.abs(y - wanted).max() / np.abs(wanted).max()
        same = (y.argmax(-1) == wanted.argmax(-1)).mean()
        print(f"{name:20} {sum(sizes.values()):>12,} {error:8.1e} {same:5.0%} {size / 1e6:7.1f} MB "
              f"{seconds:6.2f} s {seconds / read:6.1f}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
