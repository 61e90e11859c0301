"""The steps of an export that need TensorFlow; they are called in a Worker.

TensorFlow takes 15 s and 670 MB to import, writes to the console, and can crash. So it runs in a
process of its own, which starts first and writes into a log file; a crash of it is one message.

    with Worker(log, import_tensorflow) as worker:
        tflite = worker.run(to_tflite, [lower(network, 2), lower(network, 3)], network.names)

    StableHLO for 2 and for 3 examples -> TensorFlow Lite's converter -> one .tflite
    file for any batch (any_batch.py, tflite_simplify.py) -> tf2onnx -> .onnx (onnx_graph.py)
"""

import re
import sys
import tempfile

from inference.export.network import lines_of, lower
from inference.graph import METADATA, tflite_graph, tflite_interface, tflite_operators
from inference.graph.any_batch import DEPENDENT, OTHER_SIZES, SIZES, merge
from inference.graph.jax_graph import ADVICE, OTHERWISE
from utils import UserError

STABLEHLO = "1.9.0"  # the version that TensorFlow reads
OPSET_OF_TF2ONNX = 18  # the newest it writes; onnx_graph.py raises it
FAULT = re.compile(
    r"(?:^|[\s.])(?:FlatBuffer\.)?(?P<place>[^\s:'\"(]+:\d+:\d+): error: (?P<message>[^\n]+)"
)


def import_tensorflow():
    """Imports TensorFlow and tf2onnx, while the parent process builds the network."""
    for name in ("keras", "pandas", "sklearn"):  # a converter needs none of them, nor their seconds
        sys.modules.setdefault(name, None)
    import tensorflow  # noqa: F401
    import tf2onnx  # noqa: F401


def tflite_of(network, worker, metadata=None, static=None, unrolled=False):
    """Converts a Network in a Worker; returns the bytes of a .tflite file for any batch size.

    Args:
        network: Network.
        worker: Worker with TensorFlow.
        metadata: dict of JSON values, written into the file.
        static: a batch size to fix, or None.
        unrolled: whether the steps of loops stand one after the other.
    """

    def convert(*sizes):
        lowered = [lower(network, size, unrolled) for size in sizes]
        return worker.run(to_tflite, lowered, network.names, metadata, sizes)

    if static:
        return convert(static)
    try:
        return convert(*SIZES)
    except UserError as error:
        if DEPENDENT not in str(error):
            raise
    try:
        return convert(*OTHER_SIZES)
    except UserError as error:
        raise UserError(_with_line(str(error), network)) from None


def _with_line(reason, network):
    """The reason why a network is not for any batch, with its line.

    The way straight to ONNX follows the network itself; else the line is that of the operation
    that a constant is named after.
    """
    from inference.graph.onnx_direct import to_onnx

    if DEPENDENT not in reason:
        return reason
    try:
        to_onnx(network)
    except UserError as error:
        return str(error) if DEPENDENT in str(error) else reason
    named = re.search(r"the constant (?:\S*/)?(\w+) ", reason)
    lines = [line for primitive, line in lines_of(network) if named and primitive == named[1]]
    return f"{reason} ({lines[0]})" if lines else reason


def to_tflite(lowered, names, metadata=None, sizes=SIZES):
    """Converts a network to the bytes of a .tflite file.

    Args:
        lowered: list of jax.export's serialised StableHLO, as bytes: two, for 2 and for 3 examples,
            give a file for any batch size; one gives a file for its own batch size.
        names: (names of the inputs, names of the outputs), in the function's order.
        metadata: dict of JSON values, written into the file.
        sizes: the two sizes of the batch.

    Raises:
        UserError: an operation has no counterpart, or depends on the batch size.
    """
    from inference.graph.tflite_simplify import simplify

    models = [tflite_graph.load(_convert(one)) for one in lowered]
    model = merge(*models, sizes) if len(models) == 2 else models[0]
    tflite_operators.mark_exact_gelu(model)
    tflite_operators.name_combinations(model)
    tflite_operators.restore_infinities(model)
    tflite_operators.keep_infinity(model)
    tflite_interface.rename(model, *names)
    model = simplify(model)
    if metadata:
        tflite_interface.write_metadata(model, METADATA, metadata)
    return tflite_graph.dump(model)


def to_raw_onnx(tflite):
    """Translates the bytes of a .tflite file to ONNX with tf2onnx, for `onnx_graph.finish`.

    Raises:
        UserError: an operation has no counterpart.
    """
    from tf2onnx.tflite.BuiltinOperator import BuiltinOperator
    from tf2onnx.tfonnx import process_tf_graph

    known = {*vars(BuiltinOperator)} - {"CUSTOM"}
    _refuse(tflite, lambda kind: kind not in known)
    readable = tflite_graph.load(tflite)
    tflite_operators.unfold_clipping(readable)
    tflite_interface.rename_plainly(readable)
    tflite_operators.scalar_axes(readable)
    with tempfile.NamedTemporaryFile(suffix=".tflite") as file:
        file.write(tflite_graph.dump(readable))
        file.flush()
        try:
            graph = process_tf_graph(None, tflite_path=file.name, opset=OPSET_OF_TF2ONNX)
        except Exception as error:  # tf2onnx raises any type of error
            raise UserError(f"tf2onnx cannot convert the .tflite file: {_short(error)}") from None
    model = graph.make_model("network")
    left = set(_kinds(model.graph)) - {"TFL_GELU", "TFL_DYNAMIC_UPDATE_SLICE"}
    _refuse(tflite, lambda kind: f"TFL_{kind}" in left)
    return model.SerializeToString()


def _kinds(graph):
    """Yields the kind of every operator of an ONNX graph, those inside loops included."""
    for node in graph.node:
        yield node.op_type
        for attribute in node.attribute:
            yield from _kinds(attribute.g)


def _refuse(tflite, unknown):
    """Raises UserError if a .tflite file has operators of a kind that ONNX does not know."""
    faults = [
        f"{graph.kind(operator)} (layer {tflite_graph.layer_of(graph, operator)})"
        for graph in tflite_graph.graphs(tflite_graph.load(tflite))
        for operator in graph.operators
        if unknown(graph.kind(operator))
    ]
    if faults:
        raise UserError(
            f"ONNX, or tf2onnx, has no counterpart for {', '.join(dict.fromkeys(faults))}; "
            "write it with other functions, or deploy the .tflite file"
        )


def _convert(lowered):
    """Returns the bytes of a .tflite file for one batch size."""
    import jax
    import tensorflow as tf
    from tensorflow.compiler.tf2xla.python import xla

    exported = jax.export.deserialize(bytearray(lowered))
    content = _older(exported.mlir_module_serialized)
    module = tf.Module()

    def network(*inputs):
        return tuple(
            xla.call_module(
                inputs,
                module=content,
                version=exported.calling_convention_version,
                Tout=[tf.as_dtype(one.dtype) for one in exported.out_avals],
                Sout=[one.shape for one in exported.out_avals],
                platforms=["CPU"],
            )
        )

    signature = [tf.TensorSpec(one.shape, one.dtype) for one in exported.in_avals]
    module.network = tf.function(network, autograph=False, input_signature=signature)
    concrete = module.network.get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete], module)
    try:
        return converter.convert()
    except Exception as error:  # of the converter's own types, and of TensorFlow's
        raise UserError(_explain(str(error))) from None


def _older(module):
    """StableHLO in a version in which TensorFlow's converter reads composites, such as top_k."""
    from jaxlib.mlir import ir
    from jaxlib.mlir.dialects import stablehlo

    with ir.Context() as context:
        stablehlo.register_dialect(context)
        read = stablehlo.deserialize_portable_artifact(context, module)
        return stablehlo.serialize_portable_artifact(read, STABLEHLO)


def _explain(message):
    """Explains an error of TensorFlow's converter: the first fault, and that line of the model."""
    fault = FAULT.search(message)
    if fault is None:
        return f"TensorFlow's converter refused the network: {_short(message)}"
    operation = re.search(r"'(?:vhlo|stablehlo|chlo|tf|tfl)\.(\w+?)(?:_v\d)?'", fault["message"])
    named = f" ({operation[1]})" if operation and operation[1] != "XlaCallModule" else ""
    return (
        f"{fault['place']}: the operation there{named} has no counterpart in a TFLite file; "
        f"{ADVICE.get(operation and operation[1], OTHERWISE)}. TensorFlow says: "
        f"{_short(fault['message'])}"
    )


def _short(error):
    return " ".join(str(error).split())[:200]
