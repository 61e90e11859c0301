"""The files of an export: made, checked, and the sources they come from beside them."""

from functools import partial

from inference.export import converter
from inference.export.network import lower, stablehlo
from inference.export.quantize import quantize
from inference.graph.onnx_graph import finish
from inference.verify.equivalence import check
from training.common.kept_code import kept_files
from training.config import write_config
from utils import UserError


def make_files(trained, path, worker, step, static=None, kinds=()):
    """Writes the exported files; returns a result for each one that was refused.

    Args:
        trained: Trained.
        path: the files' path without a suffix.
        worker: Worker with TensorFlow.
        step: called with a line for each file.
        static: a batch size to fix, or None for any.
        kinds: of quantisation.

    Raises:
        UserError: the .tflite file, from which the others are made, is refused.
    """
    network, refused = trained.network, []

    def attempt(suffix, make):
        file = with_suffix(path, suffix)
        try:
            file.write_bytes(make())
            step(file.name)
        except UserError as error:
            refused.append({"file": file.name, "broken": [str(error)]})
            step(f"{file.name}: refused")

    def make_onnx():
        return finish(worker.run(converter.to_raw_onnx, tflite), network.names, network.metadata)

    attempt(".stablehlo", lambda: stablehlo(network, static))
    lowered = [lower(network, batch) for batch in ((static,) if static else (2, 3))]
    tflite = worker.run(converter.to_tflite, lowered, network.names, network.metadata)
    tflite_file = with_suffix(path, ".tflite")
    tflite_file.write_bytes(tflite)
    step(tflite_file.name)
    attempt(".onnx", make_onnx)
    examples = _in_batches(trained.examples, static)
    for kind in dict.fromkeys(kinds):
        attempt(f".{kind}.tflite", partial(quantize, tflite_file, kind, examples, worker.log))
    return refused


def check_files(path, reference, limits, step):
    """Returns the result of `check` of every file; renames those beyond a limit to *.rejected."""
    results = []
    files = path.parent.glob(f"{path.name}.*")
    for file in sorted(files, key=lambda file: (file.name.count("."), file)):
        precision = file.name.removeprefix(f"{path.name}.").rpartition(".")[0] or "float32"
        result = check(file, precision, reference, limits)
        if result["broken"]:
            result["file"] += ".rejected"
            file.rename(with_suffix(file, ".rejected"))
        results.append(result)
        verdict = "beyond a limit" if result["broken"] else "equal"
        step(f"{file.name} against the network: {verdict}")
    return results


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
