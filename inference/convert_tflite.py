"""Exports a trained network to TFLite, ONNX and StableHLO, and compares each file with it.

python inference/convert_tflite.py -c config.json --input "(1, 1, 28, 28)" --name jax_mnist \\
    -w saved/MNIST_Sample/<run>/checkpoint-epoch_10.params
python inference/convert_tflite.py --name jax_mnist                     the last run's best network
python inference/convert_tflite.py --name jax_mnist -w saved/MNIST_Sample/<run> \\
    --quantize float16 dynamic int8 onnx-int8 --preprocess outside --overwrite

Everything goes into inference/<name>/: the files, the model code and config they come from, and
report.json and report.html with each measurement and its limit. The exit code is 0 only if every
file that was asked for exists and keeps within its limits.
"""

import argparse
import importlib.util
import os
import re
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # `python FILE` looks beside it only

import utils
from inference.export.quantize import KINDS
from inference.serving.exports import HOME, is_export
from training.common.kept_code import add_options
from training.config import Config

# JAX takes a second to import and TensorFlow fifteen: hence imports in functions, and a process of
# its own for TensorFlow, which starts while the network is built here.

NO_TENSORFLOW = (3, 14)  # the first Python without a wheel of it, as in requirements.txt
PACKAGES = {"tensorflow", "tf2onnx", "onnx", "onnxscript", "onnxruntime", "ai_edge_litert"}


@utils.command
def main(argv=None):
    """Runs the command line; returns the exit code."""
    return export(parse_arguments(argv))


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
        "default: that of the run's data",
    )  # fmt: skip
    parser.add_argument(
        "--preprocess", choices=("inside", "outside"), default="inside",
        help="whether the files take the data as stored (uint8 pixels) and preprocess them, or "
        "take preprocessed data",
    )  # fmt: skip
    parser.add_argument(
        "--range", nargs="+", default=[], metavar="NAME=LOWEST..HIGHEST",
        help="what an input of the data may be ('length=0..40'): the files are tried with all of "
        "it; default: `ranges` of the data set, else all that the dtype and the network allow",
    )  # fmt: skip
    parser.add_argument("--static", type=int, metavar="N", help="fix the batch size to N")
    parser.add_argument(
        "--opset", type=int, choices=range(13, 21), metavar="N",
        help="the .onnx file's version of operators, 13 to 20 (default: the lowest that has them)",
    )  # fmt: skip
    parser.add_argument("--quantize", nargs="+", choices=KINDS, default=[], metavar="KIND")
    parser.add_argument(
        "--c-header", action="store_true", help="write the bytes of int8 .tflite files as C, too"
    )
    parser.add_argument(
        "--part", metavar="PATH",
        help="export a part of the parameters ('generator') with model.name=... as its function",
    )  # fmt: skip
    parser.add_argument(
        "--limit", nargs="+", default=[], metavar="KIND.NAME=VALUE",
        help="another limit, like float32.error=1e-4; see inference/verify/equivalence.py",
    )  # fmt: skip
    parser.add_argument("--into", metavar="FOLDER", help="its parent, in place of inference/")
    parser.add_argument("--overwrite", action="store_true", help="replace an export of that name")
    add_options(parser)
    parser.add_argument("overrides", nargs="*", metavar="key.path=value")
    words = sys.argv[1:] if argv is None else argv
    section = re.compile(rf"({'|'.join(Config.model_fields)})[.=]")
    overrides = [word for word in words if section.match(word)]  # --input would take them
    options = parser.parse_intermixed_args([word for word in words if word not in overrides])
    options.overrides += overrides
    return options


def export(options):
    """Makes, checks and reports every file; returns the exit code."""
    target, here = check_options(options), Path.cwd()
    from inference.export.atomic_directory import exclusive
    from inference.export.source import find_source
    from inference.verify.equivalence import parse_limits
    from inference.verify.report import console_table

    limits = parse_limits(options.limit)
    code = {"trust": options.trust, "own_code": options.own_code, "allow": options.allow}
    source = find_source(options.weights, options.config, options.overrides, **code)
    log = target.with_name(f"{target.name}.log")
    with exclusive(target):
        check_target(target, options.overwrite)  # again: another export may have made it
        log.unlink(missing_ok=True)
        try:
            folder, report = make_export(options, target, source, limits, log)
        except utils.UserError as error:
            if str(log) not in str(error):  # else the message names it
                log.unlink(missing_ok=True)
            raise
    print(console_table(report))
    print(f"Look at {os.path.relpath(folder / 'report.html', here)}")
    if any(result["broken"] for result in report["files"]):
        print(f"error: {folder}: a file is missing or beyond a limit; see above", file=sys.stderr)
        return 1
    return 0


def check_options(options):
    """Checks the options that need no run; returns the path of the export's folder."""
    if not re.fullmatch(r"\w[\w.-]*", options.name):
        raise utils.UserError(
            f"--name: {options.name!r} is no folder's name; expected letters, digits, _, - and ."
        )
    if options.static is not None and options.static < 1:
        raise utils.UserError(
            f"--static: expected a batch size of at least 1, got {options.static}"
        )
    wanted = PACKAGES | ({"ai_edge_quantizer"} if options.quantize else set())
    missing = sorted(name for name in wanted if importlib.util.find_spec(name) is None)
    if "tensorflow" in missing and sys.version_info >= NO_TENSORFLOW:
        version = ".".join(map(str, sys.version_info[:2]))
        raise utils.UserError(
            f"an export needs TensorFlow, which has no wheel for Python {version}; run this "
            "command with Python 3.11, 3.12 or 3.13. Training, test.py, predict.py and demo.py "
            "need no TensorFlow"
        )
    if missing:
        raise utils.UserError(
            f"not installed: {', '.join(missing)}; an export needs them: "
            "pip install -r requirements.txt"
        )
    target = (Path(options.into).resolve() if options.into else HOME) / options.name
    check_target(target, options.overwrite)
    return target


def check_target(target, overwrite):
    """Refuses the folder of an export that exists, unless it is an export to be overwritten."""
    if target.exists() and not is_export(target):
        raise utils.UserError(f"--name: {target} exists and is no export; choose another name")
    if target.exists() and not overwrite:
        raise utils.UserError(
            f"{target} exists; choose another --name, or replace it with --overwrite"
        )


def compute_on_cpu():
    """Lets JAX compute where the files' runtimes do; a GPU's products are rounded to 10 bits."""
    import jax

    jax.config.update("jax_platforms", "cpu")


def make_export(options, target, source, limits, log):
    """Makes the folder of an export; returns it and the report."""
    compute_on_cpu()
    from inference.export.atomic_directory import AtomicDirectory
    from inference.export.converter import import_tensorflow
    from inference.export.inputs import parse_inputs, parse_ranges
    from inference.export.trained import load, load_part
    from inference.export.worker import Worker
    from inference.verify.report import write_report

    step, static = Steps(), options.static
    with AtomicDirectory(target) as directory, Worker(log, import_tensorflow) as worker:
        specs = parse_inputs(options.input) if options.input else []
        ranges = parse_ranges(options.range)
        if options.part:
            trained = load_part(source, options.part, specs, static, ranges)
        else:
            trained = load(source, options.preprocess, specs, static, ranges)
        step(trained.network.summary)
        from inference.export import files  # takes seconds

        path = directory.folder / options.name
        refused = files.make_files(
            trained, path, worker, step, static, options.quantize, options.opset
        )
        second = files.direct_onnx(trained.network, static, options.opset)
        results = files.check_files(path, trained.reference, limits, step, second) + refused
        if options.c_header:
            files.write_headers(path)
        run = utils.ROOT if options.own_code else source.checkpoint.parent
        files.keep_sources(run, source.config, directory.folder)
        report = {
            "name": options.name,
            "metadata": trained.network.metadata,
            "limits": limits,
            "seconds": step.seconds,
            "files": results,
        }
        write_report(directory.folder, report)
        log.replace(directory.folder / "convert.log")
        return directory.publish(not any(result["broken"] for result in results)), report


class Steps:
    """Prints a line for each finished step, with the seconds that it took."""

    def __init__(self):
        self.seconds, self._start = {}, time.perf_counter()

    def __call__(self, step):
        """Records that a step is finished."""
        now = time.perf_counter()
        self.seconds[step] = round(now - self._start, 2)
        print(f"{now - self._start:6.1f} s  {step}", flush=True)
        self._start = now


if __name__ == "__main__":
    sys.exit(main())
