"""The part of an export that needs TensorFlow, in a process of its own.

TensorFlow takes 15 s and 670 MB to import, writes to the console at will, and can crash; so its
process starts first, writes into a log file, and may die without taking anything along.

    StableHLO for 2 and for 3 examples -> jax2tf -> TensorFlow Lite's converter -> one .tflite
    file for any batch (any_batch.py, simplify.py) -> tf2onnx -> .onnx (onnx_graph.py)
"""

import os
import re
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context

from utils import UserError

OPSET_OF_TF2ONNX = 18  # the newest it writes; onnx_graph.py goes on from there
FAULT = re.compile(r"(?:^|[\s.])(?P<place>[^\s:'\"(]+:\d+:\d+): error: (?P<what>[^\n]+)")


class Converter:
    """TensorFlow in a process of its own.

        with Converter(Path("convert.log")) as converter:
            content = converter.run(to_tflite, lowered, names)

    Args:
        log: file that takes what TensorFlow and its like print.
    """

    def __init__(self, log):
        self.log = log
        self._start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._pool.shutdown(cancel_futures=True)

    def run(self, function, *arguments):
        """Returns what a function of this file returns, called in the process.

        Raises:
            UserError: it raised one, or the process died.
        """
        try:
            return self._pool.submit(function, *arguments).result()
        except BrokenProcessPool:
            self._start()
            raise UserError(
                f"{function.__name__}: TensorFlow's process died without a word; its last lines "
                f"are in {self.log}. Is there enough memory? The network's other formats can do "
                "without it: leave this one out"
            ) from None

    def _start(self):
        self._pool = ProcessPoolExecutor(
            1, get_context("spawn"), initializer=_prepare, initargs=(str(self.log),)
        )
        self._pool.submit(_import_tensorflow)


def to_tflite(lowered, names):
    """Converts a network to the bytes of a .tflite file.

    Args:
        lowered: bytes of jax.export's serialised StableHLO: for 2 and for 3 examples, which gives
            a file for any number; or one alone, which gives a file for that number.
        names: (names of the inputs, names of the outputs), in the function's order.

    Raises:
        UserError: an operation has no counterpart, or depends on the batch size.
    """
    from inference import tflite_graph
    from inference.any_batch import merge
    from inference.simplify import simplify

    models = [tflite_graph.load(_convert(one)) for one in lowered]
    model = merge(*models) if len(models) == 2 else models[0]
    tflite_graph.mark_exact_gelu(model)
    tflite_graph.rename(model, *names)
    return tflite_graph.dump(simplify(model))


def to_onnx(tflite, names):
    """Converts the bytes of a .tflite file to those of an .onnx file.

    Args:
        tflite: what `to_tflite` returned.
        names: as `to_tflite` has them.

    Raises:
        UserError: an operation has no counterpart.
    """
    import tempfile

    from tf2onnx.tfonnx import process_tf_graph

    from inference import onnx_graph

    with tempfile.NamedTemporaryFile(suffix=".tflite") as file:
        file.write(tflite)
        file.flush()
        try:
            graph = process_tf_graph(None, tflite_path=file.name, opset=OPSET_OF_TF2ONNX)
        except Exception as error:  # tf2onnx raises whatever came up
            raise UserError(f"tf2onnx cannot convert the .tflite file: {_short(error)}") from None
    model = graph.make_model("network")
    unknown = sorted({node.op_type for node in model.graph.node if node.op_type.startswith("TFL_")})
    unknown = [kind for kind in unknown if kind != "TFL_GELU"]
    if unknown:
        raise UserError(f"ONNX has no counterpart for {', '.join(unknown)} of the .tflite file")
    return onnx_graph.rewrite(model, *names).SerializeToString(deterministic=True)


def _convert(lowered):
    """Returns the bytes of a .tflite file for the batch size that was lowered for."""
    import jax
    import tensorflow as tf
    from jax.experimental import jax2tf

    exported = jax.export.deserialize(bytearray(lowered))
    signature = [tf.TensorSpec(one.shape, one.dtype) for one in exported.in_avals]
    module = tf.Module()
    module.network = tf.function(
        jax2tf.convert(exported.call, with_gradient=False),
        autograph=False,
        input_signature=signature,
    )
    concrete = module.network.get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete], module)
    try:
        return converter.convert()
    except Exception as error:  # the converter's own, and TensorFlow's
        raise UserError(_explain(str(error))) from None


def _explain(message):
    """The first thing that TensorFlow's converter could not do, and where it stands."""
    fault = FAULT.search(message)
    if fault is None:
        return f"TensorFlow's converter refused the network: {_short(message)}"
    operation = re.search(r"'(?:vhlo|stablehlo|chlo|tf|tfl)\.(\w+?)(?:_v\d)?'", fault["what"])
    named = f" ({operation[1]})" if operation and operation[1] != "XlaCallModule" else ""
    return (
        f"{fault['place']}: what stands there{named} has no counterpart in a TFLite file; say it "
        "with other functions, or leave it out of the network. TensorFlow says: "
        f"{_short(fault['what'])}"
    )


def _short(error):
    return " ".join(str(error).split())[:200]


def _prepare(log):
    """Sends everything that is printed into the log; hides accelerators from TensorFlow."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(file, stream)
    os.environ |= {
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "CUDA_VISIBLE_DEVICES": "-1",
        "JAX_PLATFORMS": "cpu",
    }


def _import_tensorflow():
    import tensorflow  # noqa: F401  # while the network is built in the other process
    import tf2onnx  # noqa: F401
