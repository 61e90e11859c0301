"""Makes a checkpoint of the weights that another program wrote, and proves that it computes alike.

python -m training.weights.import_weights model.safetensors -c config.json
python -m training.weights.import_weights model.safetensors -c config.json --proof io.npz

Prints which array becomes which parameter. The config's training.checkpoint may have `rename`,
`except` and the like; --accept takes the names that it proposes. io.npz has what the original
network gets and returns: "inputs" and "outputs", or "inputs/NAME", "outputs/NAME" of several. The
run folder that is made has the checkpoint and import.json. The exit code is 0 only if every output
keeps within --limit; else there is no checkpoint.
"""

import argparse
import json
import logging
import math
import os
import sys

import numpy as np

import utils
from training.checkpoint.foreign import checksums
from training.config import Pretrained, read_config, write_config
from utils import UserError

LIMIT = 1e-4
REPORT = "import.json"
LOG = logging.getLogger("main")


@utils.command
def main(argv=None):
    """Runs the command line; returns the exit code."""
    return import_weights(parse_arguments(argv))


def parse_arguments(argv):
    """Returns the command line's options."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m training.weights.import_weights",
        description=__doc__,
        formatter_class=layout,
    )
    parser.add_argument("file", help="a safetensors file, or the index of several")
    parser.add_argument("-c", "--config", default="config.json", metavar="FILE")
    parser.add_argument("--proof", metavar="NPZ", help="inputs and outputs of the original network")
    parser.add_argument(
        "--preprocess", action="store_true",
        help="the inputs of the proof are as the data set has them, before data_loader.preprocess",
    )  # fmt: skip
    parser.add_argument(
        "--limit", type=float, default=LIMIT, metavar="ERROR",
        help=f"largest error, as a share of an output's largest magnitude (default: {LIMIT})",
    )  # fmt: skip
    parser.add_argument(
        "--accept", action="store_true", help="take names that only the shapes say, where one fits"
    )
    parser.add_argument("--allow", action="append", default=[], metavar="PACKAGE")
    parser.add_argument("overrides", nargs="*", metavar="key.path=value")
    return parser.parse_intermixed_args(argv)


def import_weights(options):
    """Imports, prints, compares and writes; returns the exit code."""
    config = read_config(options.config, options.overrides, options.allow)
    log = utils.set_up_logging()
    proof = read_proof(options.proof) if options.proof else None
    from training.engine.pretrained import fill
    from training.weights.rows import table

    forward = make_network(config, options.config, proof is None or options.preprocess)
    inputs = proof[0] if proof else _first_inputs(config, options.config)
    wanted = config.training.checkpoint or Pretrained(path=options.file)
    wanted = wanted.model_copy(update={"path": options.file})
    template, weights, wanted = _read(config, wanted, forward, inputs, options.accept)
    training = config.training.model_copy(update={"checkpoint": wanted})
    config = config.model_copy(update={"training": training})
    print(table(weights.rows))
    params = fill(template, weights)
    results = compare(forward, params, *proof) if proof else {}
    report = make_report(options, weights, results)
    if not proof:
        log.warning("Nothing shows that the network computes as the original: --proof does")
    broken = [name for name, one in results.items() if not one["error"] <= options.limit]
    folder = _write(config, params, report, not broken)
    for name, one in results.items():
        print(f"{name}: {_words(one)}{' -- beyond the limit' * (name in broken)}")
    if broken:
        where = folder / REPORT
        print(f"error: {', '.join(broken)}: beyond {options.limit:g}, see {where}", file=sys.stderr)
        return 1
    log.info('Begin a run with it: training.checkpoint="%s"', folder)
    return 0


def make_report(options, weights, results):
    """Returns what import.json holds; an infinite error is null there."""
    outputs = {
        name: {key: None if value == math.inf else value for key, value in one.items()}
        for name, one in results.items()
    }
    return {
        "files": checksums(weights.path),
        "arrays": [row._asdict() for row in weights.rows],
        "left": weights.left,
        "proof": options.proof and os.path.basename(options.proof),
        "limit": options.limit,
        "outputs": outputs,
    }


def make_network(config, source, preprocess):
    """Returns `forward(params, inputs, key, train)` of a config's network, in float32."""
    from training.engine.augment import bind_preprocess
    from training.engine.binding import bind
    from training.engine.step import make_forward

    model = bind(config.model, "model", f"{source}: model", 1, ("params", "key", "train"))
    return make_forward(model, bind_preprocess(config.data_loader, source) if preprocess else None)


def read_proof(path):
    """Returns the inputs, an array or {name: array}, and {name: array} of the outputs of a file.

    Raises:
        UserError: it has none, or cannot be read.
    """
    try:
        with np.load(path) as arrays:  # never a pickle
            given = {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, EOFError, KeyError) as error:
        raise UserError(f"{path}: this is no file of np.savez ({type(error).__name__})") from error
    outputs = {name: one for name, one in given.items() if name.partition("/")[0] == "outputs"}
    inputs = {
        name.partition("/")[2]: one for name, one in given.items() if name.startswith("inputs/")
    }
    if bool(inputs) == ("inputs" in given) or not outputs:
        raise UserError(
            f'{path}: expected the arrays "inputs" and "outputs", or "inputs/NAME" and '
            f'"outputs/NAME" of several; it has {", ".join(given) or "none"}'
        )
    return inputs or given["inputs"], outputs


def compare(forward, params, inputs, outputs):
    """Returns {output: "error", "absolute_error" and "agreement"} for recorded inputs and outputs.

    "error" is as in `training.common.differences`; "agreement" is the share of the places where the
    largest number of the last axis is at the same index, of outputs with more than one there.

    Raises:
        UserError: the network has no such output.
    """
    from training.common.differences import differences
    from training.common.trees import named_leaves
    from training.engine.compilation import compile_predict

    computed = {
        f"outputs/{name}".rstrip("/"): np.asarray(leaf)
        for name, leaf in named_leaves(compile_predict(forward)(params, inputs)).items()
    }
    if missing := [name for name in outputs if name not in computed]:
        raise UserError(
            f"the network has no {', '.join(missing)}, as the proof does; it has "
            f"{', '.join(computed)}"
        )
    if rest := [name for name in computed if name not in outputs]:
        LOG.warning("Not in the proof, so not compared: %s", ", ".join(rest))
    results = {}
    for name, wanted in outputs.items():
        ours = computed[name]
        if wanted.dtype.kind == ours.dtype.kind:
            wanted = wanted.astype(ours.dtype)
        results[name] = differences(ours, wanted)
        if wanted.shape == ours.shape and wanted.ndim and wanted.shape[-1] > 1:
            same = ours.argmax(-1) == wanted.argmax(-1)
            results[name]["agreement"] = float(same.mean())
    return results


def _read(config, wanted, forward, inputs, accept):
    """Returns parameters or their shapes, the Weights for them, and the section that says how."""
    import jax

    from training.engine.compilation import compile_init
    from training.engine.pretrained import read_weights

    def init(inputs):
        return forward(None, inputs, jax.random.key(config.seed), False)[1]

    template = jax.eval_shape(init, inputs)
    weights = read_weights(config.model, wanted, template)
    if accept and weights.names:
        LOG.info("Accepted: %s", json.dumps(weights.names))
        wanted = wanted.model_copy(update={"rename": wanted.rename | weights.names})
        weights = read_weights(config.model, wanted, template)
    if weights.left or weights.partial:
        template = compile_init(init)(inputs)
    return template, weights, wanted


def _first_inputs(config, source):
    from training.engine.build import build
    from training.engine.initialize import first_batch

    return first_batch(build(config, source))["inputs"]


def _write(config, params, report, proven):
    """Writes a run folder; one with only the report if it is not `proven`."""
    from training.checkpoint.naming import BEST
    from training.checkpoint.single_file import write
    from training.common.files import atomic_write_text
    from training.common.kept_code import keep_code
    from training.config import HOMES

    with utils.new_run_folder(config.training.save_dir, config.title) as folder:
        atomic_write_text(folder / REPORT, json.dumps(report, indent=1, allow_nan=False) + "\n")
        if proven:
            write_config(config, folder / "config.json")
            network = utils.resolve(config.model.name, HOMES["model"])
            keep_code(folder, network.__module__, config.imports)
            if record := utils.optional_module("training.provenance.record"):
                record.record_import(config, folder, report["files"])
            write(folder / BEST, {"params": params}, {})
    return folder


def _words(one):
    agreement = f", argmax agrees in {one['agreement']:.2%}" if "agreement" in one else ""
    fault = one.get("fault", "of the largest magnitude")
    return f"error {one['error']:.1e} {fault}{agreement}"


if __name__ == "__main__":
    sys.exit(main())
