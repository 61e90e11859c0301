"""Operators of a .tflite file that its writers mark wrongly, or that its readers misread."""

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from inference.graph import EXACT_GELU, INFINITE
from inference.graph.tflite_graph import FLOAT, graphs

# Versions of kinds that take floats and a scale for each channel of their weights: a runtime that
# knows no such version would take the first scale for all.
HYBRID_VERSIONS = {"FULLY_CONNECTED": 12, "CONV_2D": 5, "DEPTHWISE_CONV_2D": 6}


def mark_exact_gelu(model):
    """Makes the GELU operators exact that `jax_graph` marked.

    The converter recognises only the approximation with tanh, and keeps scopes as names.
    """
    for graph in graphs(model):
        for operator in graph.operators:
            names = graph.tensor(operator.outputs[0]).name.decode().split(";")
            if graph.kind(operator) == "GELU" and any(
                name.endswith(f"{EXACT_GELU}/tanh") for name in names
            ):
                operator.builtinOptions.approximate = False


def unfold_clipping(model):
    """RELU_N1_TO_1, by itself or fused into another operator -> MINIMUM(MAXIMUM(x, -1), 1).

    The converter writes jnp.clip(x, -1, 1) in this way, and tf2onnx does not know it.
    """
    clipping = schema.ActivationFunctionType.RELU_N1_TO_1
    for graph in graphs(model):
        for operator in list(graph.operators):
            fused = getattr(operator.builtinOptions, "fusedActivationFunction", None) == clipping
            if not fused and graph.kind(operator) != "RELU_N1_TO_1":
                continue
            (target,), at = operator.outputs, graph.operators.index(operator)
            new = [graph.add_tensor("clip", np.float32, graph.shape(target)) for _ in range(2)]
            if fused:
                operator.builtinOptions.fusedActivationFunction = schema.ActivationFunctionType.NONE
                operator.outputs = new[:1]
                at += 1
            else:
                graph.remove(operator)
                new[0] = operator.inputs[0]
            low, high = (graph.add_constant("clip", np.float32(limit)) for limit in (-1, 1))
            options = schema.MaximumMinimumOptionsT
            graph.operators[at:at] = [
                graph.make("MAXIMUM", [new[0], low], [new[1]], options()),
                graph.make("MINIMUM", [new[1], high], [target], options()),
            ]


def name_combinations(model):
    """Gives the body of a STABLEHLO_SCATTER the operator that its kernel looks for."""
    named = {"ADD": "ADD", "MUL": "MULTIPLY", "MAXIMUM": "MAXIMUM", "MINIMUM": "MINIMUM"}
    for graph in graphs(model):
        for operator in graph.operators:
            if graph.kind(operator) != "STABLEHLO_SCATTER":
                continue
            body = graphs(model)[operator.builtinOptions2.updateComputationSubgraphIndex]
            for one in body.operators:
                if body.kind(one) in named:
                    one.opcodeIndex = body.code(f"STABLEHLO_{named[body.kind(one)]}")
                    one.builtinOptions, one.builtinOptionsType = None, schema.BuiltinOptions.NONE


def scalar_axes(model):
    """Gives ARG_MAX and ARG_MIN their axis as a plain number, as tf2onnx reads it."""
    for graph in graphs(model):
        for operator in graph.operators:
            if graph.kind(operator) in ("ARG_MAX", "ARG_MIN"):
                axis = graph.constant(operator.inputs[1]).item()
                operator.inputs = [operator.inputs[0], graph.add_constant("axis", np.int32(axis))]


def raise_versions(model):
    """Gives operators the versions that their quantised weights demand, so that older runtimes
    refuse the file where they would misread it."""
    for graph in graphs(model):
        for operator in graph.operators:
            version = HYBRID_VERSIONS.get(graph.kind(operator))
            if version is None or graph.tensor(operator.inputs[0]).type != FLOAT:
                continue
            weights = graph.tensor(operator.inputs[1]).quantization
            if weights is not None and weights.scale is not None and len(weights.scale) > 1:
                code = model.operatorCodes[operator.opcodeIndex]
                code.version = max(code.version, version)


def restore_infinities(model):
    """Puts infinities back into constants, where jax_graph.py wrote INFINITE."""
    for graph in graphs(model):
        for index, tensor in enumerate(graph.subgraph.tensors):
            value = graph.constant(index) if tensor.type == FLOAT else None
            if value is not None and (np.abs(value) == np.float32(INFINITE)).any():
                limits = np.abs(value) == np.float32(INFINITE)
                value = np.where(limits, np.sign(value) * np.float32(np.inf), value)
                buffer = model.buffers[tensor.buffer]
                buffer.data = np.frombuffer(value.astype(np.float32).tobytes(), np.uint8)


def keep_infinity(model):
    """REDUCE_MAX(where(condition, x, -inf)) -> the same, -inf where no condition holds.

    The kernel starts at the lowest number; that of REDUCE_MIN at the highest. A softmax only
    subtracts the largest number, and needs no exactness there.
    """
    ends = {"REDUCE_MAX": np.finfo(np.float32).min, "REDUCE_MIN": np.finfo(np.float32).max}
    for graph in graphs(model):
        for operator in list(graph.operators):
            end = ends.get(graph.kind(operator))
            users = [graph.kind(one) for one in graph.users(operator.outputs[0])]
            needed = operator.outputs[0] in graph.subgraph.outputs or set(users) - {"SUB"}
            if end is None or not needed or not _chosen(graph, operator.inputs[0], end):
                continue
            (target,), at = operator.outputs, graph.operators.index(operator) + 1
            shape = graph.shape(target)
            found = graph.add_tensor("extreme", np.float32, shape)
            is_end = graph.add_tensor("extreme", np.bool_, shape)
            limit, infinity = (
                graph.add_constant("extreme", np.float32(one))
                for one in (end, np.sign(end) * np.inf)
            )
            operator.outputs = [found]
            graph.operators[at:at] = [
                graph.make("EQUAL", [found, limit], [is_end], schema.EqualOptionsT()),
                graph.make(
                    "SELECT_V2", [is_end, infinity, found], [target], schema.SelectV2OptionsT()
                ),
            ]


def _chosen(graph, index, end):
    """Whether a tensor is a choice between numbers and an infinity beyond the end."""
    choice = graph.maker(index)
    if choice is None or graph.kind(choice) not in ("SELECT", "SELECT_V2"):
        return False
    values = (graph.constant(one) for one in choice.inputs[1:])
    return any(one is not None and (one == np.sign(end) * np.inf).all() for one in values)
