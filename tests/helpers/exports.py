"""What the tests of exports share: options, and a linear network as ONNX and TFLite files."""

import json

import numpy as np
import onnx
from ai_edge_litert import schema_py_generated as schema
from onnx import TensorProto, helper, numpy_helper

from inference.graph import METADATA, tflite_graph, tflite_interface

QUANTIZED = ("float16", "dynamic", "int8")
# On 300 test examples one mistake is 0.33 points.
LENIENT = ["--limit", "dynamic.accuracy_loss=0.03", "dynamic.agreement=0.9",
           "int8.accuracy_loss=0.1", "int8.agreement=0.8", "int8.error=0.3",
           "float16.agreement=0.99"]  # fmt: skip
MEAN, STD = 0.1307, 0.3081
NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
NORMALIZE = {"name": "normalize", "args": {"mean": MEAN, "std": STD}}
INSIDE, OUTSIDE = ({"where": where, **NORMALIZE} for where in ("inside", "outside"))


def metadata_of(preprocess, classes=NAMES, **more):
    """The metadata of an export."""
    return {
        **more,
        "classes": classes,
        "preprocess": preprocess,
        "inputs": {"input": {"shape": ["batch", 1, 28, 28], "dtype": "uint8"}},
        "outputs": {"logits": {"shape": ["batch", 10], "dtype": "float32"}},
        **more,
    }


def write_onnx(path, weights, preprocess, *, batch="batch", size=(1, 28, 28), **metadata):
    """Writes the linear network as an ONNX file, with metadata."""
    matrix, bias = weights
    inside = preprocess is None or preprocess["where"] == "inside"
    constants = {"byte": 255, "mean": MEAN, "std": STD, "matrix": matrix, "bias": bias}
    nodes, x = [], "input"
    if inside:
        steps = [("Div", "byte"), ("Sub", "mean"), ("Div", "std")] if preprocess else []
        nodes.append(helper.make_node("Cast", [x], ["float"], to=TensorProto.FLOAT))
        x = "float"
        for kind, constant in steps:
            nodes.append(helper.make_node(kind, [x, constant], [f"{kind}_{constant}"]))
            x = f"{kind}_{constant}"
    nodes.append(helper.make_node("Flatten", [x], ["flat"]))
    nodes.append(helper.make_node("Gemm", ["flat", "matrix", "bias"], ["logits"]))
    dtype = TensorProto.UINT8 if inside else TensorProto.FLOAT
    inputs = [helper.make_tensor_value_info("input", dtype, [batch, *size])]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, len(bias)])]
    save(path, nodes, inputs, outputs, constants, metadata_of(preprocess, **metadata))


def write_tflite(path, weights, batch=-1):
    """Writes the linear network, with its preprocessing inside, as a .tflite file."""
    model = schema.ModelT()
    model.version, model.operatorCodes, model.buffers = 3, [], [schema.BufferT()]
    subgraph = schema.SubGraphT()
    model.subgraphs, subgraph.tensors, subgraph.operators = [subgraph], [], []
    graph = tflite_graph.Graph(model, subgraph)

    def tensor(name, *shape, dtype=schema.TensorType.FLOAT32):
        index = graph.add_tensor(name, np.float32, shape)
        graph.tensor(index).name, graph.tensor(index).type = name.encode(), dtype
        return index

    def add(kind, inputs, output, options=None):
        constants = [graph.add_constant("constant", value) for value in inputs[1:]]
        subgraph.operators.append(graph.make(kind, [inputs[0], *constants], [output], options))
        return output

    pixels = tensor("input", batch, 1, 28, 28, dtype=schema.TensorType.UINT8)
    x = add("CAST", [pixels], tensor("float", batch, 1, 28, 28), schema.CastOptionsT())
    for kind, value in (("DIV", 255), ("SUB", MEAN), ("DIV", STD)):
        options = {"DIV": schema.DivOptionsT, "SUB": schema.SubOptionsT}[kind]()
        x = add(kind, [x, np.float32(value)], tensor(f"x{value}", batch, 1, 28, 28), options)
    x = add("RESHAPE", [x, np.int32([-1, 784])], tensor("flat", batch, 784))
    options = schema.FullyConnectedOptionsT()
    x = add("FULLY_CONNECTED", [x, weights[0].T, weights[1]], tensor("logits", batch, 10), options)
    subgraph.inputs, subgraph.outputs = [pixels], [x]
    tflite_interface.write_metadata(model, METADATA, metadata_of(INSIDE))
    path.write_bytes(tflite_graph.dump(model))


def save(path, nodes, inputs, outputs, constants, metadata):
    """Writes an ONNX file."""
    constants = [
        numpy_helper.from_array(np.asarray(value, np.float32), name)
        for name, value in constants.items()
    ]
    graph = helper.make_graph(nodes, "network", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    if metadata:
        helper.set_model_props(model, {METADATA: json.dumps(metadata)})
    onnx.save(model, path)
