"""ONNX straight from the jaxpr, where the way over a .tflite file does not lead to it.

TFLite and ONNX have different gaps: TFLite has no arrays of more than six dimensions, and nothing
of ONNX's scatters is left in a .tflite file. Each primitive of JAX becomes an operator here, or a
few: of `onnx_elementwise.py`, `onnx_shapes.py`, `onnx_windows.py` or `onnx_control.py`.
"""

import jax

from inference.graph import onnx_control, onnx_elementwise, onnx_shapes, onnx_windows
from inference.graph.any_batch import SIZES
from inference.graph.jax_graph import exportable
from inference.graph.jax_substitutes import FOR_ONNX
from inference.graph.onnx_graph import simplify, write
from inference.graph.onnx_lowering import Lowering

OPERATORS = (
    onnx_control.OPERATORS
    | onnx_elementwise.OPERATORS
    | onnx_shapes.OPERATORS
    | onnx_windows.OPERATORS
)


def to_onnx(network, batches=SIZES, metadata=None, opset=None):
    """Returns the bytes of an .onnx file.

    Args:
        network: Network.
        batches: two batch sizes for a file of any, or one.
        metadata: dict of JSON values, written into the file.
        opset: the version of ONNX's operators; None: the lowest that has all of them.

    Raises:
        UserError: a primitive has no counterpart, or depends on the batch size.
    """
    traced = []
    for batch in batches:
        arrays = [jax.ShapeDtypeStruct((batch, *one.shape), one.dtype) for one in network.inputs]
        function = exportable(network.function, *arrays, substitutes=FOR_ONNX, refused={})
        function = exportable(function, *arrays, substitutes={}, refused={})  # without inner calls
        traced.append(jax.make_jaxpr(function)(*arrays))
    model = Lowering(OPERATORS, onnx_elementwise.BROADCASTING).model(traced[0], traced[-1])
    simplify(model)
    return write(model, network.names, metadata, opset)
