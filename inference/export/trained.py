"""From a run's checkpoint to the Network that is exported, and the data to check it on."""

from typing import NamedTuple

import jax
import numpy as np

from data_loader.device_cache import gather
from inference.export.inputs import with_specs
from inference.export.network import Array, Network, at_the_door, describe
from inference.export.quantize import CALIBRATION_EXAMPLES
from inference.verify.reference import Reference, make_reference
from inference.verify.stablehlo import compiled
from training.common.records import read_record
from training.common.trees import pick, subtree
from training.config import read_config
from training.engine.binding import bind
from training.engine.build import build
from training.engine.evaluation import is_classification, real_examples
from training.engine.initialize import count_parameters, first_batch, restored_params
from training.engine.step import make_forward
from utils import UserError, printable

MOST_BYTES = 2**31 - 2**20  # protocol buffers and flat buffers count up to 2^31


class Trained(NamedTuple):
    """A trained network, and the data for its files."""

    network: Network
    reference: Reference  # what the files are compared with
    examples: list  # batches of training data as the files take them, {name: array}


def load(source, preprocess="inside", specs=(), static=None, ranges=None):
    """Returns the Trained network of a run.

    Args:
        source: Source.
        preprocess: "inside" or "outside" the files.
        specs: Arrays from `parse_inputs`, to be checked against the run's data.
        static: a batch size to fix, or None for any.
        ranges: {input of the data: (lowest, highest)} to try the files with; the data set's own
            `ranges` are those of the inputs that are not named.
    """
    experiment, params = _restored(source)
    _check_size(params)
    named = source.config.data_loader.preprocess
    outside = named is not None and preprocess == "outside"
    in_data = first_batch(experiment)["inputs"]
    stored = jax.tree.map(at_the_door, in_data)
    as_stored, raw = jax.tree.structure(stored), _arrays(stored)

    def network(*inputs):
        outputs = experiment.forward(params, as_stored.unflatten(inputs), None, False)[0]
        return experiment.output.exported(outputs)

    if outside:
        where = f"{source.config_file}: data_loader.preprocess"
        prepare = bind(named, "transform", where, 1)
        prepared = jax.eval_shape(prepare, stored)
        plain = _network(source, params, jax.tree.structure(prepared).unflatten)

        def exported(*inputs):
            return experiment.output.exported(plain(*inputs))

        given = _arrays(prepared)
    else:
        exported, given = network, raw
    inputs = with_specs(given, specs)

    @jax.jit
    def prepared_inputs(*raw):
        return tuple(jax.tree.leaves(prepare(as_stored.unflatten(raw))))

    def feed(*raw):
        given = jax.device_get(prepared_inputs(*raw)) if outside else raw
        return tuple(np.asarray(one, array.dtype) for one, array in zip(given, inputs, strict=True))

    batches, labels, output_names = _test_set(experiment, network)
    training = _training_examples(experiment)
    metadata = _metadata(experiment, params, source, named and preprocess)
    metadata["stored_as"] = {
        one.name: str(np.asarray(leaf).dtype)
        for one, leaf in zip(raw, jax.tree.leaves(in_data), strict=True)
        if np.asarray(leaf).dtype != one.dtype
    }
    described = describe(exported, inputs, output_names, metadata, static)
    described.metadata["output"] = _output(experiment, described.names[1])
    jitted = compiled(lambda *raw: tuple(jax.tree.leaves(network(*raw))), static)
    declared = getattr(experiment.loaders["test"].dataset, "ranges", None) or {}
    reference = make_reference(
        jitted, feed, described, batches, labels, raw=raw, more=training,
        ranges={**declared, **(ranges or {})}, static=static,
    )  # fmt: skip
    names = [one.name for one in inputs]
    examples = [dict(zip(names, feed(*one), strict=True)) for one in training]
    return _trained(described, reference, examples)


def load_part(source, part, specs, static=None, ranges=None):
    """Returns the Trained network of a part of a run's parameters, such as a GAN's generator.

    The run has no test data for a part: its files are compared with JAX on random inputs alone.

    Args:
        source: Source; the model of its config is the function that takes the part as its params.
        part: path of the part ("generator").
        specs: Arrays, the inputs.
        static: a batch size to fix, or None for any.
        ranges: {input: (lowest, highest)} to try the files with.
    """
    if not specs:
        raise UserError(
            "--part needs its inputs named, like --input 'noise=(1, 64) float32': the run's data "
            "are those of the whole network"
        )
    whole = source._replace(config=read_config(source.config_file))
    experiment, params = _restored(whole)
    params = subtree(params, part, f"{source.checkpoint}: --part")
    _check_size(params)

    def named(inputs):
        names = [one.name for one in specs]
        return inputs[0] if len(specs) == 1 else dict(zip(names, inputs, strict=True))

    network = _network(source, params, named)
    metadata = _metadata(experiment, params, whole) | {"output": {"kind": "none"}}
    described = describe(network, specs, None, metadata, static)
    jitted = compiled(described.function, static)
    reference = make_reference(
        jitted, lambda *raw: raw, described, [], None, ranges=ranges, static=static
    )
    return _trained(described, reference, [])


def _trained(network, reference, examples):
    """The Trained; what the files are compared on goes into their metadata."""
    metadata = network.metadata | {"equivalence": reference.summary}
    return Trained(network._replace(metadata=metadata), reference, examples)


def _restored(source):
    """The Experiment, in float32 as the files compute, and the params (those of the first seed)."""
    jax.config.update("jax_enable_x64", False)  # a run with JAX_ENABLE_X64 is in float64
    training = source.config.training.model_copy(update={"compute_dtype": "float32"})
    config = source.config.model_copy(update={"training": training})
    experiment = build(config, source.config_file)
    arrays = jax.tree.map(_single, source.arrays)
    params = jax.device_get(restored_params(experiment, arrays, source.checkpoint))
    return experiment, params if experiment.seeds == 1 else pick(params, 0)


def _check_size(params):
    """Refuses parameters that no file holds, before the minutes that a conversion takes."""
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    if size > MOST_BYTES:
        raise UserError(
            f"the network's parameters take {size / 2**30:.2f} GB, and a .tflite, .onnx or "
            f".stablehlo file holds at most {MOST_BYTES / 2**30:.2f} GB; export it in parts "
            "(--part), or a smaller network"
        )


def _single(array):
    """An array in float32, if it is in float64."""
    return array.astype(np.float32) if getattr(array, "dtype", None) == np.float64 else array


def _network(source, params, unflatten):
    """The config's model without preprocessing: `(*arrays) -> outputs`, by `unflatten(arrays)`."""
    where = f"{source.config_file}: model"
    model = bind(source.config.model, "model", where, 1, ("params", "key", "train"))
    forward = make_forward(model)
    return lambda *arrays: forward(params, unflatten(arrays), None, False)[0]


def _arrays(batch):
    """An Array for each leaf of a batch of inputs: "input" for a single one, else named by keys."""
    leaves = jax.tree_util.tree_leaves_with_path(batch)
    names = [jax.tree_util.keystr(path, simple=True, separator="_") for path, _ in leaves]
    return [
        Array(name or "input", leaf.shape[1:], leaf.dtype)
        for name, (_, leaf) in zip(names, leaves, strict=True)
    ]


def _batches(loader):
    """Yields (leaves of the inputs, targets) of the real examples of each batch."""
    for batch in loader.batches(epoch=1):
        batch = gather(batch)
        inputs, targets = real_examples((batch["inputs"], batch["targets"]), batch["weight"])
        yield tuple(map(at_the_door, jax.tree.leaves(inputs))), targets


def _test_set(experiment, network):
    """The test set in batches of inputs; the labels of a classifier and output names, or None."""
    batches, targets = map(list, zip(*_batches(experiment.loaders["test"]), strict=True))
    outputs = jax.eval_shape(network, *batches[0])
    if experiment.output.kind == "none" or not isinstance(outputs, jax.ShapeDtypeStruct):
        return batches, None, None
    outputs = np.empty(outputs.shape, outputs.dtype)
    labels = None
    if experiment.output.kind == "softmax" and isinstance(targets[0], np.ndarray):
        found = np.concatenate(targets) if targets[0].ndim == 1 else targets[0]
        labels = found if is_classification(outputs, found) else None
    return batches, labels, ["logits"]


def _training_examples(experiment):
    """Batches of inputs of the training data, for the ranges of their numbers."""
    examples, seen = [], 0
    for raw, _ in _batches(experiment.loaders["train"]):
        examples.append(tuple(one[: CALIBRATION_EXAMPLES - seen] for one in raw))
        seen += len(examples[-1][0])
        if seen >= CALIBRATION_EXAMPLES:
            break
    return examples


def _metadata(experiment, params, source, preprocess=None):
    """The metadata of the files; `describe` adds the shapes."""
    run, named = source.checkpoint.parent, source.config.data_loader.preprocess
    dataset = experiment.loaders["test"].dataset
    classes = getattr(experiment.loaders["test"], "classes", None)
    return {
        "title": source.config.title,
        "run": run.name,
        "checkpoint": source.checkpoint.name,
        "git_revision": _revision(run),
        "classes": None if classes is None else [printable(one) for one in classes],
        "preprocess": {"where": preprocess, "name": named.name, "args": named.args}
        if preprocess
        else None,
        "value_range": getattr(dataset, "value_range", None),
        "fitted": getattr(dataset, "fitted", None),
        "parameters": count_parameters(params),
    }


def _output(experiment, names):
    """What the outputs of the files are: kind, name of the logits, names of classes or values."""
    output, loader = experiment.output, experiment.loaders["test"]
    logits = "logits" if "logits" in names and output.kind != "none" else None
    labels = getattr(loader, "classes", None) if logits else None
    if labels is None:
        labels = getattr(loader.dataset, "target_names", None)
    return {
        "kind": output.kind if logits else "none",
        "name": logits,
        "labels": None if labels is None else [printable(one) for one in labels],
        "function": output.name,
    }


def _revision(run):
    """The git revision that the run was trained at, from its environment.json."""
    revision = read_record(run / "environment.json").get("git_revision")
    return revision if isinstance(revision, str) else None
