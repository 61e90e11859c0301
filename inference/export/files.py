"""The files of an export: made, checked, and the sources they come from beside them."""

import tempfile
import traceback
from functools import partial
from pathlib import Path

from inference.export import converter
from inference.export.network import stablehlo
from inference.export.quantize import c_header, needs_unrolled, quantize
from inference.graph.onnx_direct import to_onnx
from inference.graph.onnx_graph import finish
from inference.verify.equivalence import check
from model.modules import plain_operators
from training.common.kept_code import kept_files
from training.config import write_config
from utils import UserError


def make_files(trained, path, worker, step, static=None, kinds=(), opset=None):
    """Writes the exported files; returns a result for each one that was refused.

    Each file stands by itself: what one format refuses, others may have.

    Args:
        trained: Trained.
        path: the files' path without a suffix.
        worker: Worker with TensorFlow.
        step: called with a line for each file.
        static: a batch size to fix, or None for any.
        kinds: of quantisation.
        opset: of the .onnx file, or None for the lowest that has its operators.
    """
    network, refused = trained.network, []
    tflite_file = with_suffix(path, ".tflite")

    def attempt(suffix, *ways):
        """Writes a file in the first way that leads to it."""
        file, reasons = with_suffix(path, suffix), []
        for make in ways:
            try:
                file.write_bytes(make())
                return step(file.name)
            except UserError as error:
                reasons.append(str(error))
            except OSError:  # a full disk
                raise
            except Exception as error:  # no network is to end in a traceback
                with open(worker.log, "a") as log:
                    traceback.print_exc(file=log)
                reasons.append(f"{type(error).__name__}: {error}")
        refused.append({"file": file.name, "broken": list(dict.fromkeys(reasons))})
        return step(f"{file.name}: refused")

    make_tflite = partial(converter.tflite_of, network, worker, network.metadata, static)

    def make_onnx():
        content = worker.run(converter.to_raw_onnx, tflite_file.read_bytes())
        return finish(content, network.names, network.metadata, opset)

    attempt(".stablehlo", lambda: stablehlo(network, static))
    attempt(".tflite", make_tflite)
    has_tflite = tflite_file.exists()
    attempt(".onnx", *([make_onnx] if has_tflite else []), direct_onnx(network, static, opset))
    examples = _in_batches(trained.examples, static)

    def make_smaller(kind):
        file = onnx_file if kind.startswith("onnx") else tflite_file
        if file is tflite_file and needs_unrolled(file, kind):
            with tempfile.NamedTemporaryFile(suffix=".tflite") as made:
                made.write(make_tflite(unrolled=True))
                made.flush()
                return quantize(Path(made.name), kind, examples, worker.log)
        return quantize(file, kind, examples, worker.log)

    onnx_file = with_suffix(path, ".onnx")
    for kind in dict.fromkeys(kinds):
        of_onnx = kind.startswith("onnx-")
        if (onnx_file if of_onnx else tflite_file).exists():
            ending = f".{kind.removeprefix('onnx-')}.onnx" if of_onnx else f".{kind}.tflite"
            attempt(ending, partial(make_smaller, kind))
    return refused


def direct_onnx(network, static=None, opset=None):
    """Returns the function that makes the .onnx file without a .tflite file."""
    batches = (static,) if static else (2, 3)

    def make():
        with plain_operators():
            return to_onnx(network, batches, network.metadata, opset)

    return make


def check_files(path, reference, limits, step, second=None):
    """Returns the result of `check` of every file; renames those beyond a limit to *.rejected.

    Args:
        path: the files' path without a suffix.
        reference: Reference.
        limits: {precision: {name: number}}.
        step: called with a line for each file.
        second: a function that makes the .onnx file in another way, if it is beyond a limit.
    """
    results = []
    files = path.parent.glob(f"{path.name}.*")
    for file in sorted(files, key=lambda file: (file.name.count("."), file)):
        precision = file.name.removeprefix(f"{path.name}.").rpartition(".")[0] or "float32"
        result = check(file, precision, reference, limits)
        if result["broken"] and second and file == with_suffix(path, ".onnx"):
            result = _second_way(file, second, reference, limits) or result
        if result["broken"]:
            result["file"] += ".rejected"
            file.rename(with_suffix(file, ".rejected"))
        results.append(result)
        verdict = "beyond a limit" if result["broken"] else "equal"
        step(f"{file.name} against the network: {verdict}")
    return results


def _second_way(file, make, reference, limits):
    """The result of a file made in another way, if it keeps within its limits."""
    first = file.read_bytes()
    try:
        file.write_bytes(make())
        result = check(file, "float32", reference, limits)
    except Exception:  # the first way's faults are reported
        result = {"broken": True}
    if result["broken"]:
        file.write_bytes(first)
        return None
    return result


def write_headers(path):
    """Writes a C header beside each .tflite file in int8 that was accepted."""
    for file in path.parent.glob(f"{path.name}.int8*.tflite"):
        with_suffix(file, ".h").write_text(c_header(file))


def keep_sources(run, config, folder):
    """Copies the config and the kept code of a run into an export."""
    write_config(config, folder / "config.json")
    for path, source in kept_files(run).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(source)


def with_suffix(path, suffix):
    """Returns the path with a suffix at its end, whatever dots its name has."""
    return path.with_name(path.name + suffix)


def _in_batches(examples, size):
    """The examples in batches of a size, an incomplete one left out; None: unchanged."""
    if size is None:
        return examples
    return [
        {name: array[start : start + size] for name, array in batch.items()}
        for batch in examples
        for start in range(0, len(next(iter(batch.values()))) // size * size, size)
    ]
