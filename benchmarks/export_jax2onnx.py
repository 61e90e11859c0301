"""Exports the networks with jax2onnx and onnxslim, whose pins clash with the template's.

Runs under the Python of a virtual environment of its own; export.py calls it.

    PYTHON benchmarks/export_jax2onnx.py FOLDER
"""

import sys
from pathlib import Path

import jax
import onnx
from export_networks import networks
from jax2onnx import to_onnx
from onnxslim import slim

from model.modules import plain_operators


def main():
    """Writes a file for each network, <index>.jax2onnx.onnx, or prints why there is none."""
    (folder,) = map(Path, sys.argv[1:])
    for index, example in enumerate(networks()):
        path = folder / f"{index}.jax2onnx.onnx"
        try:
            export(example, path)
        except Exception as error:  # whatever a network that it cannot take raises
            path.unlink(missing_ok=True)
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            print(f"{example.title}: jax2onnx fails: {reason[:200]}", flush=True)


def export(example, path):
    """Exports one network for any batch size, and lets onnxslim simplify the file."""

    def function(*inputs):
        return example.function(*inputs, params=example.params)

    (batch,) = jax.export.symbolic_shape("batch")
    inputs = [jax.ShapeDtypeStruct((batch, *shape), dtype) for _, shape, dtype in example.inputs]
    with plain_operators():
        to_onnx(function, inputs, return_mode="file", output_path=str(path))
    onnx.save(slim(onnx.load(path)), path)


if __name__ == "__main__":
    main()
