"""Exports a trained network to TFLite, ONNX and StableHLO, and proves the files equal to it.

python inference/convert_tflite.py -c config.json --input "(1, 1, 28, 28)" --name jax_mnist \\
    -w saved/MNIST_Sample/<run>/checkpoint-epoch_10.params
python inference/convert_tflite.py --name jax_mnist                     the last run's best network
python inference/convert_tflite.py --name jax_mnist -w saved/MNIST_Sample/<run> \\
    --quantize float16 dynamic int8 --preprocess outside --overwrite

Everything goes into inference/<name>/: the files, the model code and config they come from, and
report.json and report.html, which say what was measured and what was allowed. The exit code is 0
only if every file that was asked for is there and keeps within its limits.
"""

import argparse
import os
import re
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # `python FILE` looks beside it only

import utils
from training.config import Config, read_config, write_config

# JAX takes a second to import and TensorFlow fifteen: hence imports in functions, and a process of
# its own for TensorFlow, which starts while the network is built here.

PACKAGES = {"tensorflow", "tf2onnx", "onnx", "onnxscript", "onnxruntime", "ai_edge_litert"}
QUANTIZED = ("float16", "dynamic", "int8")


def main(argv=None):
    """Runs the command line; returns the exit code."""
    options = parse_arguments(argv)
    try:
        return export(options)
    except utils.UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def parse_arguments(argv):
    """Returns the command line's options."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--name", required=True, help="of the folder inference/<name>")
    parser.add_argument(
        "-w", "--weights", default="latest", metavar="PATH",
        help="a checkpoint; or a run folder or 'latest' (the default): its best, else its latest",
    )  # fmt: skip
    parser.add_argument("-c", "--config", metavar="FILE", help="in place of the run's own config")
    parser.add_argument(
        "--input", nargs="+", metavar="SHAPE",
        help="'(1, 1, 28, 28)' or 1 1 28 28, batch first; several as 'name=(1, 16) int32'; "
        "left out, it is that of the run's data",
    )  # fmt: skip
    parser.add_argument(
        "--preprocess", choices=("inside", "outside"), default="inside",
        help="whether the files take the data as stored (uint8 pixels) and prepare them, or "
        "take prepared data",
    )  # fmt: skip
    parser.add_argument("--static", type=int, metavar="N", help="fix the batch size to N")
    parser.add_argument("--quantize", nargs="+", choices=QUANTIZED, default=[], metavar="KIND")
    parser.add_argument(
        "--part", metavar="PATH",
        help="export a part of the parameters ('generator') with model.name=... as its function",
    )  # fmt: skip
    parser.add_argument(
        "--limit", nargs="+", default=[], metavar="KIND.NAME=VALUE",
        help="another limit, like float32.error=1e-4; see inference/verify/equivalence.py",
    )  # fmt: skip
    parser.add_argument("--into", metavar="FOLDER", help="where it goes, in place of inference/")
    parser.add_argument("--overwrite", action="store_true", help="replace an export of that name")
    parser.add_argument("overrides", nargs="*", metavar="key.path=value")
    words = sys.argv[1:] if argv is None else argv
    section = re.compile(rf"({'|'.join(Config.model_fields)})[.=]")
    overrides = [word for word in words if section.match(word)]  # --input would swallow them
    options = parser.parse_intermixed_args([word for word in words if word not in overrides])
    options.overrides += overrides
    return options


def export(options):
    """Makes, checks and reports every file; returns the exit code."""
    from inference.verify.equivalence import LIMITS

    target, here = _target(options), Path.cwd()
    limits = _limits(options.limit, LIMITS)
    run = _read_run(options)
    log = target.with_name(f"{target.name}.log")
    log.unlink(missing_ok=True)
    try:
        folder, report = make_export(options, target, run, limits, log)
    except utils.UserError as error:
        if str(log) not in str(error):  # then nobody is sent to look into it
            log.unlink(missing_ok=True)
        raise
    from inference.verify.report import console_table

    print(console_table(report))
    print(f"Look at {os.path.relpath(folder / 'report.html', here)}")
    if any(result["broken"] for result in report["files"]):
        print(f"error: {folder}: not every file is there and good; see above", file=sys.stderr)
        return 1
    return 0


def make_export(options, target, run, limits, log):
    """Makes the folder of an export; returns it and the report."""
    from inference.export.converter import import_tensorflow
    from inference.export.staging import AtomicDirectory
    from inference.export.worker import Worker
    from inference.verify.report import write_report

    config, source, checkpoint, arrays = run
    step = Steps()
    with AtomicDirectory(target) as staging, Worker(log, import_tensorflow) as worker:
        trained = _load(options, config, source, checkpoint, arrays)
        if options.static:
            _fix_batch(trained.network.metadata, options.static)
        step(_summary(trained.network))
        refused = make_files(options, trained, worker, staging.folder, step)
        results = check_files(options.name, trained, staging.folder, limits, step) + refused
        keep_sources(checkpoint.parent, config, staging.folder)
        report = {"name": options.name, "metadata": trained.network.metadata, "limits": limits}
        report |= {"seconds": step.seconds, "files": results}
        write_report(staging.folder, report)
        log.replace(staging.folder / "convert.log")
        return staging.publish(not any(result["broken"] for result in results)), report


def make_files(options, trained, worker, folder, step):
    """Writes the exported files; returns a result for each that was refused.

    Raises:
        UserError: there is no .tflite file, from which the others are made.
    """
    from inference.export.converter import to_raw_onnx, to_tflite
    from inference.export.network import lower, stablehlo
    from inference.export.quantize import quantize
    from inference.graph.onnx_graph import finish  # several seconds, while TensorFlow takes its own

    network, path, refused = trained.network, folder / options.name, []

    def attempt(suffix, make):
        try:
            _file(path, suffix).write_bytes(make())
            step(f"{options.name}{suffix}")
        except utils.UserError as error:
            refused.append({"file": f"{options.name}{suffix}", "broken": [str(error)]})
            step(f"{options.name}{suffix}: refused")

    attempt(".stablehlo", lambda: stablehlo(network, options.static))
    batches = (options.static,) if options.static else (2, 3)
    lowered = [lower(network, batch) for batch in batches]
    tflite = worker.run(to_tflite, lowered, network.names, network.metadata)
    _file(path, ".tflite").write_bytes(tflite)
    step(f"{options.name}.tflite")
    attempt(
        ".onnx",
        lambda: finish(worker.run(to_raw_onnx, tflite), network.names, network.metadata),
    )
    for kind in dict.fromkeys(options.quantize):
        examples = _in_batches_of(options.static, trained.examples)
        source = _file(path, ".tflite")
        attempt(
            f".{kind}.tflite", lambda: quantize(source, kind, examples, worker.log)  # noqa: B023
        )  # fmt: skip
    return refused


def check_files(name, trained, folder, limits, step):
    """Holds every file against the network, and renames those beyond a limit *.rejected."""
    from inference.verify.equivalence import check

    results = []
    for path in sorted(folder.glob(f"{name}.*"), key=lambda path: (path.name.count("."), path)):
        precision = path.name.removeprefix(f"{name}.").rpartition(".")[0] or "float32"
        result = check(path, precision, trained.reference, limits)
        if result["broken"]:
            result["file"] += ".rejected"
            path.rename(path.with_name(result["file"]))
        results.append(result)
        step(
            f"{path.name} against the network: {'beyond a limit' if result['broken'] else 'equal'}"
        )
    return results


def keep_sources(run, config, folder):
    """Copies the config and the code of the network into the export."""
    import shutil

    write_config(config, folder / "config.json")
    for path in sorted(run.rglob("*.py")):
        copy = folder / path.relative_to(run)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)


class Steps:
    """Prints a line for each step that is done, with the seconds it took."""

    def __init__(self):
        self.seconds, self._began = {}, time.perf_counter()

    def __call__(self, what):
        """Notes that a step is done."""
        now = time.perf_counter()
        self.seconds[what] = round(now - self._began, 2)
        print(f"{now - self._began:6.1f} s  {what}", flush=True)
        self._began = now


def _target(options):
    """The export's folder; refuses a name that is taken, or that is none."""
    if not re.fullmatch(r"\w[\w.-]*", options.name):
        raise utils.UserError(
            f"--name: {options.name!r} is no folder's name; expected letters, digits, _, - and ."
        )
    if options.static is not None and options.static < 1:
        raise utils.UserError(
            f"--static: expected a batch size of at least 1, got {options.static}"
        )
    import importlib.util

    wanted = PACKAGES | ({"ai_edge_quantizer"} if options.quantize else set())
    missing = sorted(name for name in wanted if importlib.util.find_spec(name) is None)
    if missing:
        raise utils.UserError(
            f"not installed: {', '.join(missing)}; an export needs them: "
            "pip install -r requirements.txt"
        )
    folder = Path(options.into).resolve() if options.into else utils.ROOT / "inference"
    target = folder / options.name
    if target.exists() and not options.overwrite:
        raise utils.UserError(
            f"{target} exists; choose another --name, or replace it with --overwrite"
        )
    return target


def _limits(changes, defaults):
    limits = {kind: dict(named) for kind, named in defaults.items()}
    for change in changes:
        found = re.fullmatch(r"(\w+)\.(\w+)=([\d.eE+-]+)", change)
        kind, name, number = found.groups() if found else (None, None, None)
        known = ("error", "agreement", "accuracy_loss")
        if kind not in limits or name not in known:
            raise utils.UserError(
                f"--limit: {change!r}; expected KIND.NAME=VALUE, KIND one of {', '.join(limits)}, "
                f"NAME one of {', '.join(known)}"
            )
        limits[kind][name] = float(number)
    return limits


def _read_run(options):
    """The run's config, its name, and the checkpoint with its arrays."""
    from training.checkpoint.naming import find
    from training.checkpoint.reading import read
    from training.checkpoint.restore import network_params

    named = None if options.weights == "latest" else Path(options.weights).resolve()
    source = Path(options.config).resolve() if options.config else None
    os.chdir(utils.ROOT)  # paths in a config, such as the data's, are the project's
    checkpoint = find(named or utils.latest_run("saved"), prefer_best=True).resolve()
    utils.use_code_of(checkpoint.parent)
    source = source or checkpoint.parent / "config.json"
    config = read_config(source, options.overrides)
    return config, source, checkpoint, network_params(read(checkpoint)[0])


def _load(options, config, source, checkpoint, arrays):
    from inference.export import trained

    specs = trained.parse_inputs(options.input) if options.input else []
    if options.part:
        model, config = config.model, read_config(source)
        return trained.load_part(config, model, source, checkpoint, arrays, options.part, specs)
    return trained.load(config, source, checkpoint, arrays, options.preprocess, specs)


def _fix_batch(metadata, size):
    for kind in ("inputs", "outputs"):
        for one in metadata[kind].values():
            one["shape"][0] = size


def _summary(network):
    def words(arrays):
        return ", ".join(
            f"{one.name} {one.dtype} ({', '.join(map(str, ('batch', *one.shape)))})"
            for one in arrays
        )

    return (
        f"network of {network.metadata['parameters']} parameters: {words(network.inputs)} -> "
        f"{words(network.outputs)}"
    )


def _file(path, suffix):
    return path.with_name(path.name + suffix)


def _in_batches_of(size, examples):
    """The examples in batches of a size; None: as they are."""
    if size is None:
        return examples
    return [
        {name: array[start : start + size] for name, array in batch.items()}
        for batch in examples
        for start in range(0, len(next(iter(batch.values()))) // size * size, size)
    ]


if __name__ == "__main__":
    sys.exit(main())
