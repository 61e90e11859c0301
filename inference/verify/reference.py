"""What the files of an export are compared with: the network's own outputs in JAX."""

from importlib.metadata import PackageNotFoundError, version
from typing import NamedTuple

import jax
import numpy as np

from inference.verify.trials import BATCHES, edge_inputs, find_spans, nearby, random_inputs
from training.common.differences import sensitivity

RUNTIMES = {"onnx": "onnxruntime", "tflite": "ai-edge-litert", "stablehlo": "jax"}


class Trial(NamedTuple):
    """Inputs besides the test set, and what the network returns for them."""

    name: str
    inputs: tuple  # raw
    outputs: list
    own: list  # how much each output changes when the inputs change in their last bits


class Reference(NamedTuple):
    """What the files are compared with."""

    function: object  # jitted: (*raw inputs) -> tuple of outputs
    feed: object  # (*raw inputs) -> what the files take; the identity, or the preprocessing
    inputs: list  # Array of each, as the files take them
    outputs: list  # Array of each
    batches: list  # of the test set: (raw inputs, outputs of the function), real examples only
    labels: np.ndarray | None  # (examples,), if there is one class for each
    spans: list  # Span of each raw input
    trials: list  # Trial, in the order they are run
    kind: str = "none"  # what the logits are: "softmax", "sigmoid"; "none" if there are none
    logits: int = 0  # which output has them

    @property
    def summary(self):
        """What is compared, as JSON values for the metadata of the files."""
        return {
            "ranges": {one.name: [one.low, one.high] for one in self.spans},
            "batches": sorted({len(one.inputs[0]) for one in self.trials}),
            "test_examples": sum(len(inputs[0]) for inputs, _ in self.batches),
            "runtimes": _versions(),
        }


def make_reference(function, feed, network, batches, labels, *, raw=None, more=(), ranges=None,
                   static=None):  # fmt: skip
    """Returns the Reference; runs the network over the test set and over the trials.

    Args:
        function: jitted, `(*raw inputs) -> tuple of outputs`.
        feed: `(*raw inputs) -> what the files take`.
        network: Network.
        batches: of the test set, tuples of raw inputs; or none.
        labels: (examples,) of a classifier, or None.
        raw: Array of each raw input; None: those of the network.
        more: tuples of raw inputs, of the training data, for the extremes.
        ranges: {name: (lowest, highest)} of raw inputs.
        static: the batch size of the files, None for any.

    Raises:
        UserError: the ranges do not fit the inputs.
    """
    spans = find_spans(function, raw or network.inputs, [*batches, *more], ranges or {})
    computed = [(inputs, to_numpy(function(*inputs))) for inputs in batches]
    sizes = (static,) if static else (*BATCHES, *(len(one[0]) + 1 for one in batches[:1]))
    trials = {f"random, batch {size}": random_inputs(spans, size) for size in sizes}
    for name, inputs in edge_inputs(spans).items():
        trials[name] = _cut(inputs, static) if static else inputs
    if not static:
        trials["batch 1 again"] = random_inputs(spans, 1)
    made = []
    for name, inputs in trials.items():
        outputs = to_numpy(function(*inputs))
        own = sensitivity(outputs, to_numpy(function(*nearby(inputs))))
        made.append(Trial(name, inputs, outputs, own))
    arrays = network.inputs, network.outputs
    said = network.metadata.get("output") or {"kind": "none" if labels is None else "softmax"}
    names = [one.name for one in network.outputs]
    logits = names.index(said["name"]) if said.get("name") else 0
    return Reference(function, feed, *arrays, computed, labels, spans, made, said["kind"], logits)


def _cut(inputs, size):
    """A batch of another size, of the first examples in turn."""
    return tuple(one[np.arange(size) % len(one)] for one in inputs)


def to_numpy(outputs):
    """Returns a function's outputs as NumPy arrays."""
    return [np.asarray(one) for one in jax.device_get(outputs)]


def _versions():
    """{ending of the files: runtime and version}."""
    found = {}
    for ending, package in RUNTIMES.items():
        try:
            found[ending] = f"{package} {version(package)}"
        except PackageNotFoundError:
            continue
    return found
