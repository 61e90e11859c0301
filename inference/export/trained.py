"""From a run's checkpoint to the Network that is exported, and the data it is held against."""

import json
import re
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from inference.verify.equivalence import Reference, make_reference
from inference.export.network import Array, Network, describe
from inference.export.quantize import CALIBRATION_EXAMPLES
from training.engine.binding import bind
from training.engine.build import build
from training.engine.evaluation import is_classification, real_examples
from training.engine.step import make_forward
from data_loader.device_cache import gather
from training.engine.initialize import count_parameters, first_batch, restored_params
from training.common.trees import pick, subtree
from utils import UserError

SPEC = re.compile(r"(?:(\w+)\s*[=:]\s*)?[(\[]([\d\s,]*)[)\]]\s*:?\s*([a-z]+\d*)?")


class Trained(NamedTuple):
    """A trained network and the data to hold its files against."""

    network: Network
    reference: Reference
    examples: list  # batches of training data as the files take them, {name: array}


def load(config, source, checkpoint, arrays, preprocess, specs=()):
    """Returns the Trained network of a run.

    Args:
        config: the run's Config.
        source: its name, for messages.
        checkpoint: path of the checkpoint.
        arrays: `network_params` of it.
        preprocess: "inside" or "outside" the file.
        specs: list of Array from `parse_inputs`, to be checked against the run's data.

    Raises:
        UserError: weights, config, data and inputs do not fit each other.
    """
    experiment = _build(config, source)
    params = _params(experiment, arrays, checkpoint)
    stored, as_stored = jax.tree.flatten(gather(first_batch(experiment))["inputs"])
    names = _names(as_stored)
    where = f"{source}: data_loader.preprocess"
    named = config.data_loader.preprocess
    prepare = bind(named, "transform", where, 1) if named else None
    outside = prepare is not None and preprocess == "outside"

    def network(*inputs):
        return experiment.forward(params, as_stored.unflatten(inputs), None, False)[0]

    if outside:
        prepared = jax.eval_shape(prepare, as_stored.unflatten(stored))
        stored, as_prepared = jax.tree.flatten(prepared)
        names = _names(as_prepared)
        alone = _forward(config, source)

        def exported(*inputs):
            return alone(params, as_prepared.unflatten(inputs), None, False)[0]

    own = [Array(name, one.shape[1:], one.dtype) for name, one in zip(names, stored, strict=True)]
    inputs = _checked(specs, own)

    @jax.jit
    def prepared_inputs(*raw):
        return tuple(jax.tree.leaves(prepare(as_stored.unflatten(raw))))

    def feed(*raw):
        given = jax.device_get(prepared_inputs(*raw)) if outside else raw
        return tuple(np.asarray(one, array.dtype) for one, array in zip(given, inputs, strict=True))

    batches, labels, names = _test_set(experiment, network)
    metadata = _metadata(experiment, params, checkpoint, config, named and preprocess)
    described = describe(exported if outside else network, inputs, names, metadata)
    jitted = jax.jit(lambda *raw: tuple(jax.tree.leaves(network(*raw))))
    reference = make_reference(jitted, feed, described, batches, labels)
    return Trained(described, reference, _training_examples(experiment, feed, inputs))


def load_part(config, model, source, checkpoint, arrays, part, specs):
    """Returns the Trained network of a part of a run's parameters, such as a GAN's generator.

    There are no test data for it: it is held against JAX on random inputs alone.

    Args:
        config: the run's Config.
        model: Named, the function that takes this part as its params.
        source: the config's name, for messages.
        checkpoint: path of the checkpoint.
        arrays: `network_params` of it.
        part: path of the part ("generator").
        specs: list of Array, the inputs.

    Raises:
        UserError: there is no such part, or no input was named.
    """
    if not specs:
        raise UserError(
            "--part needs its inputs named, like --input 'noise=(1, 64) float32': the run's data "
            "are those of the whole network"
        )
    experiment = _build(config, source)
    params = _params(experiment, arrays, checkpoint)
    params = subtree(params, part, f"{checkpoint}: --part")
    forward = _forward(config.model_copy(update={"model": model}), source)

    def network(*inputs):
        single = len(inputs) == 1
        given = inputs[0] if single else {
            one.name: array for one, array in zip(specs, inputs, strict=True)
        }  # fmt: skip
        return forward(params, given, None, False)[0]

    described = describe(network, specs, None, _metadata(experiment, params, checkpoint, config, None))
    jitted = jax.jit(described.function)

    def feed(*raw):
        return raw

    return Trained(described, make_reference(jitted, feed, described, [], None), [])


def parse_inputs(words):
    """Returns the Arrays that --input names; the first number of a shape is the batch.

    Args:
        words: list of words: "(1, 1, 28, 28)", or 1 1 28 28, or several, each with a name and a
            dtype if it likes: "tokens=(1, 16) int32" "picture=(1, 1, 28, 28)".

    Raises:
        UserError: they are not of this form.
    """
    text = " ".join(words)
    if re.fullmatch(r"[\d\s,]+[a-z\d]*", text):
        numbers, dtype = re.fullmatch(r"([\d\s,]+?)\s*([a-z]+\d*)?", text).groups()
        text = f"({numbers}) {dtype or ''}"
    found = [match.groups() for match in SPEC.finditer(text)]
    if not found or SPEC.sub("", text).strip(" ,;"):
        raise UserError(
            f"--input: {text!r} is no shape; expected '(1, 1, 28, 28)', or several like "
            "'tokens=(1, 16) int32' 'picture=(1, 1, 28, 28) uint8'"
        )
    arrays = []
    for index, (name, numbers, dtype) in enumerate(found):
        sizes = [int(number) for number in re.findall(r"\d+", numbers)]
        if not sizes or 0 in sizes:
            raise UserError(f"--input: ({numbers}) is no shape; expected the batch, and no zeros")
        try:
            kind = np.dtype(dtype) if dtype else None
        except TypeError:
            raise UserError(f"--input: no dtype is called {dtype!r}") from None
        unnamed = "input" if len(found) == 1 else f"input_{index}"
        arrays.append(Array(name or unnamed, tuple(sizes[1:]), kind))
    return arrays


def _checked(specs, own):
    """The run's own inputs, with the names and dtypes of --input, which must fit them."""
    if not specs:
        return own
    wanted = ", ".join(
        f"{one.name}=(1, {', '.join(map(str, one.shape))}) {one.dtype}" for one in own
    )
    if [one.shape for one in specs] != [one.shape for one in own]:
        came = ", ".join(f"(1, {', '.join(map(str, one.shape))})" for one in specs)
        raise UserError(
            f"--input: {came} does not fit the run's data, which are {wanted}; "
            "leave --input out to take them"
        )
    checked = []
    for spec, one in zip(specs, own, strict=True):
        dtype = one.dtype if spec.dtype is None else spec.dtype
        if dtype not in (one.dtype, np.float32):
            raise UserError(
                f"--input: {dtype} does not fit the run's data, which are {wanted}; "
                "expected their dtype or float32"
            )
        name = one.name if spec.name.startswith("input") else spec.name
        checked.append(Array(name, one.shape, np.dtype(dtype)))
    return checked


def _build(config, source):
    """The Parts of a run, computing in float32: files do."""
    training = config.training.model_copy(update={"compute_dtype": "float32"})
    return build(config.model_copy(update={"training": training}), source)


def _params(experiment, arrays, checkpoint):
    """The network's parameters; of several seeds', those of the first."""
    params = jax.device_get(restored_params(experiment, arrays, checkpoint))
    return params if experiment.seeds == 1 else pick(params, 0)


def _forward(config, source):
    model = bind(config.model, "model", f"{source}: model", 1, ("params", "key", "train"))
    return make_forward(model, lambda inputs, key, train: inputs)


def _names(structure):
    """A name for each leaf of the inputs: "input" for a single array, else the keys."""
    paths = jax.tree_util.tree_leaves_with_path(structure.unflatten(range(structure.num_leaves)))
    names = [jax.tree_util.keystr(path, simple=True, separator="_") for path, _ in paths]
    return [name or "input" for name in names]


def _test_set(experiment, network):
    """The test set in batches of inputs; labels and output names if it is to be classified."""
    batches, targets = [], []
    for batch in experiment.loaders["test"].batches(epoch=1):
        batch = gather(batch)
        inputs, target = real_examples((batch["inputs"], batch["targets"]), batch["weight"])
        batches.append(tuple(jax.tree.leaves(inputs)))
        targets.append(target)
    outputs = jax.device_get(jax.jit(network)(*batches[0]))
    if isinstance(targets[0], np.ndarray):
        labels = np.concatenate(targets)
        if isinstance(outputs, np.ndarray) and is_classification(outputs, labels):
            return batches, labels, ["logits"]
    return batches, None, None


def _training_examples(experiment, feed, inputs):
    """Some training data as the files take them, for quantisation."""
    examples, seen = [], 0
    for batch in experiment.loaders["train"].batches(epoch=1):
        batch = gather(batch)
        raw = real_examples(batch["inputs"], batch["weight"])
        arrays = feed(*(one[: CALIBRATION_EXAMPLES - seen] for one in jax.tree.leaves(raw)))
        examples.append({one.name: array for one, array in zip(inputs, arrays, strict=True)})
        seen += len(arrays[0])
        if seen >= CALIBRATION_EXAMPLES:
            break
    return examples


def _metadata(experiment, params, checkpoint, config, preprocess):
    """What the files say of themselves; shapes are added by `describe`."""
    folder = Path(checkpoint).resolve().parent
    named = config.data_loader.preprocess
    classes = getattr(experiment.loaders["test"].dataset, "classes", None)
    return {
        "title": config.title,
        "run": folder.name,
        "checkpoint": Path(checkpoint).name,
        "git_revision": _revision(folder),
        "classes": None if classes is None else [str(one) for one in classes],
        "preprocess": {"where": preprocess, "name": named.name, "args": named.args}
        if preprocess
        else None,
        "parameters": count_parameters(params),
    }


def _revision(folder):
    """The git revision the run was trained at, as the run itself noted it."""
    try:
        return json.loads((folder / "environment.json").read_text())["git_revision"]
    except (OSError, ValueError, KeyError):
        return None
