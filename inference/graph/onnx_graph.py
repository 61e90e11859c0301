"""Rewrites of the ONNX graph that tf2onnx makes: the operators a person would have written.

tf2onnx translates operator by operator. TFLite has no layer normalisation, and its convolutions
have channels last where ONNX has them first. So tf2onnx writes nine operators in place of one, and
two transpositions around every convolution. Each rule below names a pattern and its replacement.
"""

import itertools
import json
import logging
import sys

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import OutputFixPass
from onnxscript import optimizer
from onnxscript.rewriter import RewritePass

from inference.graph import METADATA
from inference.graph.onnx_indices import refuse_negative_indices
from inference.graph.onnx_loops import simplify_loops
from inference.graph.onnx_recurrent import recognise_recurrent
from inference.graph.onnx_rules import FUSIONS, LAYOUT, Gelu
from inference.graph.tflite_interface import plain_name
from utils import UserError

OPSET, LOWEST_OPSET = 20, 13  # of the files; 20 is the first with Gelu
BATCH = "batch"  # name of the dimension


def finish(raw, names, metadata=None, opset=None):
    """Applies the rules; returns the bytes of the .onnx file.

    Args:
        raw: bytes of ONNX from `converter.to_raw_onnx`.
        names: (names of the inputs, names of the outputs), in the function's order.
        metadata: dict of JSON values, written into the file.
        opset: the version of ONNX's operators; None: the lowest that has all of them.
    """
    logging.getLogger("onnx_ir").setLevel(
        logging.ERROR
    )  # it warns of shapes that it does not infer
    model = ir.from_proto(onnx.load_from_string(raw))
    model.opset_imports[""] = OPSET
    RewritePass([Gelu.rule()])(model)  # first, as no shape is inferred behind unknown operators
    _fold(model)  # so that the rules see constants and shapes
    simplify_loops(model)
    recognise_recurrent(model)
    simplify(model)
    _sort(model.graph.inputs, "inputs")
    _sort(model.graph.outputs, "outputs")
    OutputFixPass()(model)  # a loop may return one value twice, or its own input
    return write(model, names, metadata, opset)


def write(model, names, metadata=None, opset=None):
    """Returns the bytes of the file of an ir.Model; for the arguments see `finish`.

    Raises:
        UserError: the opset lacks an operator.
    """
    _name(model, *names)
    model = ir.to_proto(model)
    refuse_negative_indices(model)
    if metadata:
        onnx.helper.set_model_props(model, {METADATA: json.dumps(metadata)})
    faults = {}
    for version in range(LOWEST_OPSET, OPSET + 1):
        model.opset_import[0].version = version
        try:
            onnx.checker.check_model(model, full_check=True)
        except Exception as error:  # of the checker, or of shape inference
            faults[version] = " ".join(str(error).split())[:200]
            continue
        if opset is None or version == opset:
            break
    if opset is not None and opset in faults:
        raise UserError(
            f"--opset {opset} has not all operators of this network: {faults[opset]}. The lowest "
            "that has is written without --opset"
        )
    return model.SerializeToString(deterministic=True)


def simplify(model):
    """Applies the rules that are not of loops."""
    _fold(model)
    for rules in (FUSIONS, LAYOUT):
        RewritePass(rules)(model)
        _fold(model)


def _sort(values, kind):
    """Orders a graph's inputs or outputs, which have the names of `rename_plainly`."""
    order = {plain_name(kind, at): at for at in range(len(values))}
    values.sort(key=lambda value: order[value.name.removesuffix(":0")])


def _name(model, inputs, outputs):
    """Names the inputs and outputs as asked, all else by short names of its own."""
    ends = list(zip((*model.graph.inputs, *model.graph.outputs), (*inputs, *outputs), strict=True))
    for value, name in ends:
        value.name = name
        value.shape = ir.Shape(size if isinstance(size, int) else BATCH for size in value.shape)
    named, taken = {id(value) for value, _ in ends}, {*inputs, *outputs}
    short = (name for name in map("v{}".format, itertools.count()) if name not in taken)
    for graph in (model.graph, *model.graph.subgraphs()):
        made = (value for node in graph for value in node.outputs)
        for value in (*graph.inputs, *graph.initializers.values(), *made):
            if id(value) not in named:
                value.name = next(short)
        for at, node in enumerate(graph):
            node.name = f"{node.op_type}_{at}"


def _fold(model):
    """Computes constants of any size, and infers shapes."""
    optimizer.optimize(model, input_size_limit=sys.maxsize, output_size_limit=sys.maxsize)
