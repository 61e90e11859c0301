"""An index below 0 has no row, and is refused by the file: ONNX itself would count from the end.

Indices that count from the end in the network are already raised by its size where they reach a
Gather, so what is below 0 there has no meaning: a token that the table has no row for.
"""

import numpy as np
import onnx
from onnx import helper, numpy_helper

# Operators whose results are never below 0, or that the network itself limits.
NOT_BELOW = {"Abs", "ArgMax", "ArgMin", "Clip", "Max", "NonZero", "Range", "Relu", "Shape", "Size",
             "TopK"}  # fmt: skip
GATHERS = ("Gather", "GatherND")


def refuse_negative_indices(model):
    """Lets every Gather of a network's input fail for an index below 0; changes the ModelProto.

    The index becomes the largest integer, for which every runtime raises an error.
    """
    graph = model.graph
    producers = {name: node for node in graph.node for name in node.output}
    constants = {one.name for one in graph.initializer}
    inputs = {one.name for one in graph.input} - constants
    found = [
        node
        for node in graph.node
        if node.op_type in GATHERS and _comes_from(node.input[1], inputs, producers)
    ]
    if not found:
        return
    inferred = onnx.shape_inference.infer_shapes(model).graph
    types = {one.name: one.type for one in (*inferred.input, *inferred.value_info)}
    for count, node in enumerate(found):
        index = node.input[1]
        dtype = helper.tensor_dtype_to_np_dtype(types[index].tensor_type.elem_type)
        added = _raise_negative(graph, index, dtype, f"checked_index_{count}")
        place = list(graph.node).index(node)
        node.input[1] = added[-1].output[0]
        for one in reversed(added):
            graph.node.insert(place, one)


def _comes_from(name, inputs, producers):
    """Whether a value is computed from an input of the network, and may be below 0."""
    seen, waiting = set(), [name]
    while waiting:
        one = waiting.pop()
        if one in inputs:
            return True
        node = producers.get(one)
        if one in seen or node is None or node.op_type in NOT_BELOW:
            continue
        seen.add(one)
        waiting += node.input[1:] if node.op_type == "Where" else node.input
    return False


def _raise_negative(graph, index, dtype, name):
    """The nodes that make of what is below 0 the largest integer; their constants are added."""
    for suffix, value in (("zero", 0), ("none", np.iinfo(dtype).max)):
        graph.initializer.append(numpy_helper.from_array(dtype.type(value), f"{name}_{suffix}"))
    return [
        helper.make_node("Less", [index, f"{name}_zero"], [f"{name}_below"], f"{name}_less"),
        helper.make_node(
            "Where", [f"{name}_below", f"{name}_none", index], [name], f"{name}_where"
        ),
    ]
