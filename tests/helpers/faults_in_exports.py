"""Seeded faults of exported files: what a wrong converter, or a wrong rewrite, could have done."""

import copy

import numpy as np
import onnx
from ai_edge_litert import schema_py_generated as schema
from onnx import numpy_helper

from inference.graph import tflite_graph

KINDS = ("scale", "zero", "last element", "attribute", "operator", "output order")
OTHERS = {  # an operator that takes and returns the same
    "Add": "Sub", "Sub": "Add", "Mul": "Add", "Div": "Mul", "Tanh": "Sigmoid", "Sigmoid": "Tanh",
    "Relu": "Tanh", "ReduceMean": "ReduceMax", "Less": "LessOrEqual", "Greater": "GreaterOrEqual",
    "Gelu": "Relu", "Max": "Min", "MaxPool": "AveragePool", "ADD": "SUB", "SUB": "ADD",
    "MUL": "ADD", "DIV": "MUL", "TANH": "LOGISTIC", "LOGISTIC": "TANH", "LESS": "LESS_EQUAL",
    "RELU": "TANH", "MEAN": "REDUCE_MAX", "FLOOR_DIV": "DIV", "FLOOR_MOD": "SUB",
    "GREATER": "GREATER_EQUAL", "GELU": "RELU",
}  # fmt: skip


def faulty(content, suffix, seed):
    """Returns (what the fault is, bytes of a file with it); None where it has no place."""
    random = np.random.default_rng(seed)
    kind = KINDS[seed % len(KINDS)]
    make = _onnx if suffix == ".onnx" else _tflite
    return make(content, kind, random)


def _changed(value, kind, random):
    value = value.copy()
    if kind == "scale":
        value = value * np.float32(random.choice([0.5, 0.98, 1.02, -1]))
    elif kind == "zero":
        value = value * 0
    else:
        last = value.reshape(-1)
        last[-1] = last[-1] + (1 if value.dtype.kind in "iu" else 0.1 + abs(last[-1]))
    return value


NUMBERS = (onnx.AttributeProto.INT, onnx.AttributeProto.INTS, onnx.AttributeProto.FLOAT)


def _onnx(content, kind, random):
    model = onnx.load_from_string(content)
    graph = model.graph
    if kind in ("scale", "zero", "last element"):
        whole = kind == "last element"
        found = [
            one for one in graph.initializer
            if np.prod(one.dims) and (whole or one.data_type == onnx.TensorProto.FLOAT)
        ]  # fmt: skip
        if not found:
            return None
        one = found[random.integers(len(found))]
        value = _changed(numpy_helper.to_array(one), kind, random)
        one.CopyFrom(numpy_helper.from_array(value.astype(value.dtype), one.name))
        return f"{kind} of {one.name} {list(one.dims)}", model.SerializeToString()
    if kind == "output order":
        if len(graph.output) < 2:
            return None
        outputs = [copy.deepcopy(one) for one in graph.output][::-1]
        del graph.output[:]
        graph.output.extend(outputs)
        return kind, model.SerializeToString()
    if kind == "operator":
        found = [node for node in graph.node if node.op_type in OTHERS]
        if not found:
            return None
        node = found[random.integers(len(found))]
        words = f"{node.op_type} as {OTHERS[node.op_type]}"
        node.op_type = OTHERS[node.op_type]
        return words, model.SerializeToString()
    found = [
        (node, one) for node in graph.node for one in node.attribute
        if one.type in NUMBERS
        and one.name not in ("to", "saturate", "stash_type", "allowzero")
    ]  # fmt: skip
    if not found:
        return None
    node, one = found[random.integers(len(found))]
    if one.type == onnx.AttributeProto.FLOAT:
        one.f = one.f * 10
    elif one.type == onnx.AttributeProto.INT:
        one.i = 1 - one.i if one.i in (0, 1) else one.i + 1
    else:
        numbers = list(one.ints)
        numbers[-1] += 1
        del one.ints[:]
        one.ints.extend(numbers if one.name != "perm" else list(one.ints)[::-1] or numbers[::-1])
    return f"{one.name} of {node.op_type}", model.SerializeToString()


def _tflite(content, kind, random):
    model = tflite_graph.load(content)
    graph = tflite_graph.graphs(model)[0]
    if kind in ("scale", "zero", "last element"):
        kinds = (np.float32,) if kind != "last element" else (np.float32, np.int32)
        found = [
            at for at in range(len(graph.subgraph.tensors))
            if (value := graph.constant(at)) is not None and value.size and value.dtype in kinds
        ]  # fmt: skip
        if not found:
            return None
        at = found[random.integers(len(found))]
        value = _changed(graph.constant(at), kind, random)
        data = np.frombuffer(value.astype(graph.constant(at).dtype).tobytes(), np.uint8)
        model.buffers[graph.tensor(at).buffer].data = data
        return f"{kind} of {graph.tensor(at).name.decode()[-40:]}", tflite_graph.dump(model)
    if kind == "output order":
        signature = model.signatureDefs[0]
        if len(signature.outputs) < 2:
            return None
        first, second = signature.outputs[:2]
        first.tensorIndex, second.tensorIndex = second.tensorIndex, first.tensorIndex
        return kind, tflite_graph.dump(model)
    if kind == "operator":
        found = [one for one in graph.operators if graph.kind(one) in OTHERS]
        if not found:
            return None
        one = found[random.integers(len(found))]
        words = f"{graph.kind(one)} as {OTHERS[graph.kind(one)]}"
        if OTHERS[graph.kind(one)] not in ("REDUCE_MAX",):
            one.builtinOptions, one.builtinOptionsType = _options(OTHERS[graph.kind(one)])
        one.opcodeIndex = graph.code(OTHERS[graph.kind(one)])
        return words, tflite_graph.dump(model)
    functions = schema.ActivationFunctionType
    found = [
        one for one in graph.operators if hasattr(one.builtinOptions, "fusedActivationFunction")
    ]
    if not found:
        return None
    one = found[random.integers(len(found))]
    fused = one.builtinOptions.fusedActivationFunction
    one.builtinOptions.fusedActivationFunction = (
        functions.RELU if fused == functions.NONE else functions.NONE
    )
    return f"activation of {graph.kind(one)}", tflite_graph.dump(model)


def _options(kind):
    names = {"ADD": "Add", "SUB": "Sub", "MUL": "Mul", "DIV": "Div"}
    if kind not in names:
        return None, schema.BuiltinOptions.NONE
    name = f"{names[kind]}Options"
    return getattr(schema, f"{name}T")(), getattr(schema.BuiltinOptions, name)
