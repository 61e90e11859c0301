"""Writes the weights of a run for another program: a safetensors file, and a model card.

python -m training.weights.export_weights saved/TITLE/RUN --to torch
python -m training.weights.export_weights saved/TITLE/RUN --to torch --like model.safetensors

Names and layouts are those of the file that the weights once came from (or of --like, the file of a
network of that kind), else those of PyTorch's layers with the paths here. Goes to RUN/torch/ unless
--into names a folder: model.safetensors, and README.md, in the form that model hubs read. Nothing
is uploaded.
"""

import argparse
import json
import logging
import math
import sys
from pathlib import Path

import numpy as np

import utils
from model.lora import merge_lora
from training.checkpoint.foreign import as_float32, in_folder, is_foreign
from training.checkpoint.naming import find
from training.checkpoint.reading import read, read_meta
from training.checkpoint.restore import network_params
from training.checkpoint.single_file import DTYPE_NAMES
from training.common.files import atomic_write, atomic_write_text
from training.common.kept_code import add_options, code_of
from training.common.records import read_record
from training.config import read_config
from training.engine.pretrained import names_of
from training.weights.import_weights import REPORT
from training.weights.layouts import MATRICES, disarrange
from training.weights.mapping import map_file
from training.weights.rows import Row

WEIGHTS, CARD = "model.safetensors", "README.md"
LEAVES = {  # names of a layer's arrays in PyTorch
    "kernel": "weight", "scale": "weight", "table": "weight", "stats/mean": "running_mean",
    "stats/variance": "running_var",
}  # fmt: skip
CARD_TEXT = """---
{yaml}
---

# {title}

{count} trained parameters. What is not stated below is not known: complete it before publishing.

- Network: `{model}`
- Data: `{data}`
- What the network gets is preprocessed by: `{preprocess}`
- Licence of the weights: {license}. Of the data, and of weights it began with: not stated.

| metric | value |
|---|---|
{rows}
"""
LORA = "model.lora:lora"
LOG = logging.getLogger("main")


@utils.command
def main(argv=None):
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m training.weights.export_weights", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument(
        "run", help="a run folder or 'latest', for its best checkpoint; or a checkpoint"
    )
    parser.add_argument("--to", choices=["torch"], required=True)
    parser.add_argument("--like", metavar="FILE", help="a safetensors file whose names to use")
    parser.add_argument(
        "--dtype", choices=["float32", "bfloat16", "float16"],
        help="of the floating-point arrays (default: as the run has them, mostly float32)",
    )  # fmt: skip
    parser.add_argument("--into", metavar="FOLDER", help="in place of RUN/torch")
    parser.add_argument("--license", default="other", help="for the model card ('mit')")
    add_options(parser)
    options = parser.parse_args(argv)
    utils.set_up_logging()
    run = utils.latest_run("saved") if options.run == "latest" else options.run
    checkpoint = find(run, prefer_best=True)
    params = network_params(read(checkpoint)[0])
    with code_of(checkpoint.parent, options.trust, options.own_code):
        config = read_config(checkpoint.with_name("config.json"), (), options.allow)
        names = names_of(config.model)
    if config.training.seeds > 1:
        params = {name: array[0] for name, array in params.items()}
    if config.model.name == LORA:
        params = without_adapters(params, config.model.args.get("scale", 1.0))
    rows = source_rows(checkpoint, config, params, names, options.like)
    arrays = to_torch(params, rows)
    if options.dtype:
        dtype = np.dtype(options.dtype)
        arrays = {name: as_float32(one, name, checkpoint, dtype) for name, one in arrays.items()}
    folder = Path(options.into or checkpoint.with_name(options.to))
    folder.mkdir(parents=True, exist_ok=True)
    write_safetensors(folder / WEIGHTS, arrays)
    metrics = read_meta(checkpoint).get("metrics") or {}
    atomic_write_text(folder / CARD, model_card(config, params, metrics, options.license))
    where = "the names they came with" if rows else "PyTorch's names for the layers here"
    LOG.info("%d arrays, under %s: %s", len(arrays), where, folder / WEIGHTS)
    LOG.info("Complete the model card before you publish it: %s", folder / CARD)
    return 0


def source_rows(checkpoint, config, params, names, like=None):
    """Returns the rows of the file that a run's weights came from; [] if there is none any more.

    Args:
        checkpoint: path of the run's checkpoint.
        config: the run's Config.
        params: {path: array}.
        names: NAMES of the network's file.
        like: path of a file to take in place of it, or None.
    """
    wanted = config.training.checkpoint
    report = read_record(checkpoint.with_name(REPORT))
    if report and not like:
        return [_row(row) for row in report["arrays"]]
    if not like and (not wanted or wanted.convert):
        return []
    path = in_folder(Path(like or wanted.path))
    if not path.exists():
        LOG.warning("%s, where the weights came from, is not there; see --like", path)
        return []
    if is_foreign(path):
        rename, partial = (wanted.rename, wanted.partial) if wanted else ({}, None)
        return map_file(path, params, names, rename, partial)[1]
    before = find(path, prefer_best=True)
    if like or wanted.rename or not before.with_name("config.json").is_file():
        return []
    return source_rows(before, read_config(before.with_name("config.json")), params, names)


def without_adapters(params, scale):
    """Returns {path: array} in which the kernels have what LoRA adds to them."""
    layers = {}
    for path, array in params.items():
        part, _, leaf = path.rpartition("/")
        layers.setdefault(part, {})[leaf] = array
    merged = {part: merge_lora(layer, scale) for part, layer in layers.items()}
    return {
        f"{part}/{leaf}".lstrip("/"): array
        for part, layer in merged.items()
        for leaf, array in layer.items()
    }


def to_torch(params, rows):
    """Returns {name: array} for PyTorch of {path: array}; without a row, under names of its own."""
    sources, arrays = {}, {}
    for row in rows:
        if row.target in params and row.sources:
            sources.setdefault(row.sources, []).append(row)
    taken = {row.target for found in sources.values() for row in found}
    for names, found in sources.items():
        found.sort(key=lambda row: row.share)
        whole = np.concatenate([np.atleast_1d(params[row.target]) for row in found], -1)
        for name, shape, part in zip(
            names, found[0].shapes, np.split(whole, len(names), -1), strict=True
        ):
            arrays[name] = disarrange(part, _layout(found[0], name), shape)
    for path, array in params.items():
        if path not in taken:
            name, layout = torch_name(path)
            arrays[name] = disarrange(array, layout)
    return arrays


def torch_name(path):
    """Returns the name of a parameter in PyTorch, and how its axes are there."""
    found = next((leaf for leaf in LEAVES if f"/{path}".endswith(f"/{leaf}")), None)
    layout = "transposed" if found == "kernel" else "as-is"
    name = path.removesuffix(found) + LEAVES[found] if found else path
    return name.replace("/", "."), layout


def write_safetensors(path, arrays):
    """Writes {name: array} as PyTorch's libraries read it."""
    entries, end = {"__metadata__": {"format": "pt"}}, 0
    arrays = dict(sorted(arrays.items(), key=lambda one: (-one[1].itemsize, one[0])))  # aligned
    for name, array in arrays.items():
        begin, end = end, end + array.nbytes
        dtype, shape = DTYPE_NAMES[array.dtype], list(array.shape)
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
    header = json.dumps(entries).encode()
    header += b" " * (-len(header) % 8)
    content = (np.ascontiguousarray(array).reshape(-1).view(np.uint8) for array in arrays.values())
    atomic_write(path, [len(header).to_bytes(8, "little"), header, *content])


def model_card(config, params, metrics, license_name):
    """Returns the text of a model card: its head is YAML, https://hf.co/docs/hub/model-cards."""
    numbers = {
        name: value for name, value in sorted(metrics.items())
        if name.startswith("test_") and isinstance(value, int | float) and math.isfinite(value)
    }  # fmt: skip
    data, loader = config.data_loader.test.model_dump(), config.data_loader.preprocess
    dataset = data["args"].get("dataset", data) if isinstance(data["args"], dict) else data
    kind = dataset["name"] if isinstance(dataset, dict) else str(dataset)
    result = {
        "task": {"type": "other"},
        "dataset": {"name": f"{config.title} (test)", "type": kind},
        "metrics": [
            {"type": name.removeprefix("test_"), "value": value} for name, value in numbers.items()
        ],
    }
    head = {"license": license_name, "tags": ["jax", config.model.name.rpartition(":")[2]]}
    if numbers:
        head["model-index"] = [{"name": config.title, "results": [result]}]
    count = sum(array.size for name, array in params.items() if "stats" not in name.split("/"))
    text = dict.fromkeys(("model", "data", "preprocess"), "")
    text["model"] = json.dumps(config.model.model_dump())
    text["data"] = json.dumps(data)
    text["preprocess"] = json.dumps(loader.model_dump()) if loader else "none"
    yaml = "\n".join(f"{key}: {json.dumps(value)}" for key, value in head.items())
    rows = "\n".join(f"| {name} | {value:.6g} |" for name, value in numbers.items())
    return CARD_TEXT.format(
        yaml=yaml, title=config.title, count=count, rows=rows or "| none | |", **text,
        license=license_name,
    )  # fmt: skip


def _layout(row, name):
    """How the axes of a source are; of one whose shape did not fit, as PyTorch's usually are."""
    if row.layout:
        return row.layout
    kernel = row.target.rpartition("/")[2] in MATRICES and name.endswith("weight")
    return "transposed" if kernel else "as-is"


def _row(values):
    """A Row as JSON holds it."""
    tuples = {key: tuple(values[key]) for key in ("sources", "share")}
    shape = values["shape"] and tuple(values["shape"])
    return Row(**values | tuples | {"shapes": tuple(map(tuple, values["shapes"])), "shape": shape})


if __name__ == "__main__":
    sys.exit(main())
