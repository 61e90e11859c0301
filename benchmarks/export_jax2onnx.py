"""Exports the networks with jax2onnx and onnxslim, whose pins conflict with the template's.

Runs in its own virtual environment; export.py calls it.

    PYTHON benchmarks/export_jax2onnx.py FOLDER
"""

import sys
from pathlib import Path

import jax
import onnx
import onnxruntime
from export_networks import example_inputs, networks
from jax2onnx import to_onnx
from onnxslim import slim

from model.modules import plain_operators


def main():
    """Writes <index>.jax2onnx.onnx for each network, or prints why its file does not run."""
    (folder,) = map(Path, sys.argv[1:])
    for index, example in enumerate(networks()):
        path = folder / f"{index}.jax2onnx.onnx"
        try:
            export(example, path)
            onnxruntime.InferenceSession(path).run(None, arrays_for(path, example))
        except Exception as error:  # unsupported networks raise various errors
            path.unlink(missing_ok=True)
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            print(f"{example.title}: jax2onnx fails: {reason[:200]}", flush=True)


def export(example, path):
    """Exports one network for any batch size, and simplifies the file with onnxslim."""

    def function(*inputs):
        return example.function(*inputs, params=example.params)

    (batch,) = jax.export.symbolic_shape("batch")
    inputs = [jax.ShapeDtypeStruct((batch, *shape), dtype) for _, shape, dtype in example.inputs]
    with plain_operators():
        to_onnx(function, inputs, return_mode="file", output_path=str(path))
    onnx.save(slim(onnx.load(path)), path)


def arrays_for(path, example):
    """Returns an example's inputs by their names in the file."""
    names = [one.name for one in onnx.load(path).graph.input]
    return dict(zip(names, example_inputs(example.inputs, 1), strict=True))


if __name__ == "__main__":
    main()
