"""Exported files in their own runtimes: LiteRT, onnxruntime, or JAX for StableHLO.

    network = load("inference/jax_mnist/jax_mnist.onnx")
    network.run({"input": images})["logits"]

Neither TensorFlow nor, for the first two, JAX is imported.
"""

import contextlib
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from inference.graph import METADATA
from inference.verify.metadata import parse_metadata
from utils import UserError, printable


class Loaded(NamedTuple):
    """An exported network."""

    run: Callable  # {name: array of the whole batch} -> {name: array}
    inputs: dict  # {name: (shape, dtype)}; a size that varies is "batch"
    outputs: dict
    metadata: dict  # as export/network.py makes it; empty for .stablehlo, which holds none
    count_operators: Callable = Counter  # () -> {kind: count}; empty for .stablehlo
    # {name: {"dtype", "scale", "zero_point"}} of inputs and outputs in whole numbers; `run` takes
    # and returns real ones.
    scales: dict = MappingProxyType({})

    @property
    def operators(self):
        """The number of operators of each kind; counted on request, as that is slow."""
        return self.count_operators()


def load(path, threads=None, own=False):
    """Loads an exported file in the runtime that its suffix names.

    Args:
        path: .tflite, .onnx or .stablehlo file.
        threads: number of threads to compute with; None for the runtime's own choice.
        own: whether this process has made the file; a .stablehlo file of others is tried first.

    Raises:
        UserError: the file is missing, damaged or of another kind; or its runtime is missing.
    """
    path = Path(path)
    loaders = {".tflite": _load_tflite, ".onnx": _load_onnx, ".stablehlo": _load_stablehlo}
    if path.suffix not in loaders:
        raise UserError(f"{path}: expected a file that ends in {', '.join(loaders)}")
    if not path.is_file():
        raise UserError(f"{path}: there is no such file; export it first")
    try:
        return loaders[path.suffix](path, threads, own)
    except ImportError as error:
        raise UserError(
            f"{path}: its runtime is not installed ({_one_line(error)}). "
            "Install it: pip install -r requirements.txt"
        ) from None
    except UserError:
        raise
    except Exception as error:  # each runtime has exceptions of its own
        raise UserError(
            f"{path}: not a network that its runtime takes: {_one_line(error)}"
        ) from None


def _load_tflite(path, threads, own):
    from ai_edge_litert.interpreter import Interpreter

    from inference.graph import tflite_graph, tflite_interface

    content = path.read_bytes()
    with _quiet():
        interpreter = Interpreter(model_content=content, num_threads=threads)
        interpreter.allocate_tensors()
    model = tflite_graph.load(content)
    graph = tflite_graph.graphs(model)[0]

    ends = [*interpreter.get_input_details(), *interpreter.get_output_details()]
    scales = {one["name"]: _scale(one) for one in ends if one["quantization"][0]}

    def describe(details):
        return {
            one["name"]: (
                _named(one["shape_signature"]),
                np.dtype(np.float32 if one["name"] in scales else one["dtype"]),
            )
            for one in details
        }

    def run(arrays):
        for one in interpreter.get_input_details():
            array = arrays[one["name"]]
            if tuple(one["shape"]) != array.shape:
                interpreter.resize_tensor_input(one["index"], array.shape, strict=True)
        interpreter.allocate_tensors()
        for one in interpreter.get_input_details():
            interpreter.set_tensor(one["index"], _quantised(arrays[one["name"]], one))
        interpreter.invoke()
        return {
            one["name"]: _real(interpreter.get_tensor(one["index"]), one)
            for one in interpreter.get_output_details()
        }

    return Loaded(
        run,
        describe(interpreter.get_input_details()),
        describe(interpreter.get_output_details()),
        parse_metadata(tflite_interface.metadata_content(model, METADATA), path),
        lambda: Counter(graph.kind(one) for one in graph.operators),
        scales,
    )


def _scale(details):
    """A tensor's {"dtype", "scale", "zero_point"}: real = scale * (whole - zero_point)."""
    scale, zero = details["quantization"]
    return {
        "dtype": np.dtype(details["dtype"]).name,
        "scale": float(scale),
        "zero_point": int(zero),
    }


def _quantised(array, details):
    """Real numbers as the whole numbers that an input takes."""
    scale, zero = details["quantization"]
    if not scale:
        return array
    limits = np.iinfo(details["dtype"])
    return np.clip(np.rint(array / scale) + zero, limits.min, limits.max).astype(details["dtype"])


def _real(array, details):
    """The real numbers of an output in whole numbers."""
    scale, zero = details["quantization"]
    return (np.float32(scale) * (array.astype(np.float32) - zero)) if scale else array


def signature_faults(path):
    """Returns a phrase for each name that a .tflite file's signature gives to another tensor."""
    from inference.graph import tflite_graph

    model = tflite_graph.load(path.read_bytes())
    if not model.signatureDefs:
        return ["it has no signature"]
    (signature,), graph = model.signatureDefs, tflite_graph.graphs(model)[0]
    pairs = [(signature.inputs, graph.subgraph.inputs), (signature.outputs, graph.subgraph.outputs)]
    return [
        f"its signature's {entry.name.decode()} is another tensor"
        for entries, tensors in pairs
        for entry, index in zip(entries, tensors, strict=True)
        if entry.tensorIndex != index or graph.tensor(index).name != entry.name
    ]


def _load_onnx(path, threads, own):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(
        path, options, providers=["CPUExecutionProvider"], enable_fallback=False
    )
    properties = session.get_modelmeta().custom_metadata_map
    names = [one.name for one in session.get_outputs()]

    def describe(arrays):
        return {
            one.name: (tuple(one.shape), np.dtype(_ONNX_DTYPES.get(one.type, one.type[7:-1])))
            for one in arrays
        }

    def run(arrays):
        return dict(zip(names, session.run(names, arrays), strict=True))

    return Loaded(
        run,
        describe(session.get_inputs()),
        describe(session.get_outputs()),
        parse_metadata(properties.get(METADATA, "{}"), path),
        lambda: _onnx_operators(path),
    )


_ONNX_DTYPES = {"tensor(float)": "float32", "tensor(double)": "float64"}


def _onnx_operators(path):
    import onnx

    graph = onnx.load(path, load_external_data=False).graph
    return Counter(node.op_type for node in graph.node)


def _load_stablehlo(path, threads, own):
    from inference.verify import stablehlo

    exported, function = stablehlo.read(path, own)

    def describe(prefix, avals):
        return {
            f"{prefix}{index}": (tuple(map(_size, one.shape)), np.dtype(one.dtype))
            for index, one in enumerate(avals)
        }

    def run(arrays):
        outputs = function(*arrays.values())
        return {f"output{index}": np.asarray(one) for index, one in enumerate(outputs)}

    inputs = describe("input", exported.in_avals)
    return Loaded(run, inputs, describe("output", exported.out_avals), {})


def _size(dimension):
    return dimension if isinstance(dimension, int) else str(dimension)


def _one_line(error):
    return printable(" ".join(str(error).split())[:300])


def _named(signature):
    return tuple("batch" if size == -1 else int(size) for size in signature)


@contextlib.contextmanager
def _quiet():
    """Suppresses LiteRT's messages about its delegates; errors are raised all the same."""
    saved, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)
