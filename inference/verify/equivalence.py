"""The equivalence check of an export: each file, in its own runtime, against the JAX network.

Every file is run on the whole test set and on random inputs at batch 1, 3 and 64, and compared with
the jitted JAX network as training evaluates it. A file beyond a limit is rejected.
"""

import re
import statistics
import time
from functools import partial
from typing import NamedTuple

import jax
import numpy as np

from inference.verify.runtimes import load
from utils import UserError

BATCHES = (1, 3, 64)  # of the random inputs
TIMED = (1, 64)  # batches whose latency is measured
TIMED_SECONDS = 0.3  # for each file and batch
SHOWN = 10  # numbers of an output that the table shows

# "error": largest difference, as a share of the outputs' largest magnitude, test set and random.
# "agreement": least share of test examples with the same likeliest class.
# "accuracy_loss": largest allowed loss of test accuracy; 0.001 is 0.1 points.
LIMITS = {
    "float32": {"error": 2e-5, "agreement": 1.0},
    "float16": {"error": 1e-2, "agreement": 0.9995},
    "dynamic": {"accuracy_loss": 0.001},
    "int8": {"accuracy_loss": 0.005},
}
LIMIT_NAMES = ("error", "agreement", "accuracy_loss")
# Without classes, only the error is limited.
ERRORS_WITHOUT_CLASSES = {"dynamic": 0.1, "int8": 0.2}


class Reference(NamedTuple):
    """What the files are compared with."""

    function: object  # jitted: (*raw inputs) -> tuple of outputs
    feed: object  # (*raw inputs) -> what the files take; the identity, or the preprocessing
    inputs: list  # Array of each, as the files take them
    outputs: list  # Array of each
    batches: list  # of the test set: (raw inputs, outputs of the function), real examples only
    labels: np.ndarray | None  # (examples,), if the network is a classifier of its test set


def make_reference(function, feed, network, batches, labels):
    """Returns the Reference; runs the network over the test set: tuples of raw inputs, or none."""
    computed = [(inputs, _host(function(*inputs))) for inputs in batches]
    return Reference(function, feed, network.inputs, network.outputs, computed, labels)


def parse_limits(changes):
    """Returns LIMITS with the changes that --limit names: "KIND.NAME=VALUE"."""
    limits = {kind: dict(named) for kind, named in LIMITS.items()}
    for change in changes:
        match = re.fullmatch(r"(\w+)\.(\w+)=([\d.eE+-]+)", change)
        kind, name, number = match.groups() if match else (None, None, None)
        if kind not in limits or name not in LIMIT_NAMES:
            raise UserError(
                f"--limit: {change!r}; expected KIND.NAME=VALUE, KIND one of {', '.join(limits)}, "
                f"NAME one of {', '.join(LIMIT_NAMES)}"
            )
        limits[kind][name] = float(number)
    return limits


def check(path, precision, reference, limits):
    """Measures one exported file and compares it with the network.

    Args:
        path: the file.
        precision: key of the limits: "float32", "float16", "dynamic" or "int8".
        reference: Reference.
        limits: {precision: {name: number}}.

    Returns:
        JSON values; "broken" is a list with a phrase for each limit that the file exceeds.
    """
    try:
        return _check(path, precision, reference, limits)
    except Exception as error:  # each runtime has exceptions of its own
        reason = " ".join(str(error).split())[:200]
        return {"file": path.name, "broken": [f"its runtime cannot run it: {reason}"]}


def random_inputs(reference, batch, seed=0):
    """Returns a batch of random raw inputs in the range of the test set."""
    random, inputs = np.random.default_rng(seed), []
    for sample in _samples(reference):
        shape = (batch, *sample.shape[1:])
        if np.issubdtype(sample.dtype, np.integer):
            low, high = sample.min(), sample.max()
            inputs.append(random.integers(low, high, shape, endpoint=True).astype(sample.dtype))
        else:
            mean, std = (sample.mean(), sample.std()) if reference.batches else (0, 1)
            inputs.append((mean + std * random.normal(size=shape)).astype(sample.dtype))
    return tuple(inputs)


def _check(path, precision, reference, limits):
    loaded = load(path)
    operators, fixed = loaded.operators, _fixed_batch(loaded)

    def run(arrays):
        inputs = dict(zip((one.name for one in reference.inputs), arrays, strict=True))
        outputs = loaded.run(inputs)
        if not operators:  # StableHLO has an order of outputs, but no names
            return list(outputs.values())
        return [outputs[one.name] for one in reference.outputs]

    result = {
        "file": path.name,
        "precision": precision,
        "bytes": path.stat().st_size,
        "operators": dict(operators.most_common()),
        "inputs": _describe(loaded.inputs),
        "outputs": _describe(loaded.outputs),
        "batch": fixed or "any",
    }
    result |= _on_test_set(run, reference, fixed)
    result |= _on_random_inputs(run, reference, fixed)
    result["latency"] = _latency(run, reference, fixed)
    result["broken"] = _broken(result, precision, limits)
    return result


def _samples(reference):
    """A batch of each raw input; zeros where there is no test set."""
    if reference.batches:
        return reference.batches[0][0]
    return [np.zeros((1, *one.shape), one.dtype) for one in reference.inputs]


def _on_test_set(run, reference, fixed):
    """Errors, agreement and accuracy over the whole test set."""
    if not reference.batches:
        return {"examples": 0}
    computed, wanted = [], []
    for inputs, outputs in reference.batches:
        computed.append(_in_batches(run, reference.feed(*inputs), fixed))
        wanted.append(outputs)
    computed, wanted = (
        [np.concatenate(one) for one in zip(*outputs, strict=True)]
        for outputs in (computed, wanted)
    )
    result = {"examples": len(wanted[0])} | _differences(computed, wanted)
    if reference.labels is not None:
        guesses, right = (logits[0].argmax(-1) for logits in (computed, wanted))
        accuracy, before = ((one == reference.labels).mean() for one in (guesses, right))
        result |= {
            "same_class": int((guesses == right).sum()),
            "accuracy": float(accuracy),
            "accuracy_change": float(accuracy - before),
        }
    first = [one[0].reshape(-1)[:SHOWN].tolist() for one in computed]
    result["first_output"] = dict(zip((one.name for one in reference.outputs), first, strict=True))
    return result


def _on_random_inputs(run, reference, fixed):
    """The largest differences on random inputs, for each batch size."""
    found = {}
    for batch in (fixed,) if fixed else BATCHES:
        raw = random_inputs(reference, batch)
        found[batch] = _differences(run(reference.feed(*raw)), _host(reference.function(*raw)))
    return {"random": found}


def _in_batches(run, inputs, fixed):
    """Runs a file on a batch of any size; with a fixed batch in pieces, the last one filled up."""
    if not fixed:
        return run(inputs)
    count, pieces = len(inputs[0]), []
    for start in range(0, count, fixed):
        rows = np.arange(start, start + fixed) % count
        pieces.append(run([one[rows] for one in inputs]))
    return [np.concatenate(one)[:count] for one in zip(*pieces, strict=True)]


def _differences(computed, wanted):
    """The largest absolute error; and the largest as a share of its output's largest magnitude."""
    absolute = scaled = 0.0
    for one, other in zip(computed, wanted, strict=True):
        if one.shape != other.shape:
            return {"absolute_error": float("inf"), "error": float("inf")}
        one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
        if not np.isfinite(one).all() and np.isfinite(other).all():
            return {"absolute_error": float("inf"), "error": float("inf")}
        difference = float(np.abs(one - other).max(initial=0))
        absolute = max(absolute, difference)
        scaled = max(scaled, difference / max(float(np.abs(other).max(initial=0)), 1e-30))
    return {"absolute_error": absolute, "error": scaled}


def _latency(run, reference, fixed):
    """{batch: time of the file over that of the jitted network}: medians of alternating calls."""
    ratios = {}
    for batch in (fixed,) if fixed else TIMED:
        raw = random_inputs(reference, batch)
        times = ([], [])
        given = reference.feed(*raw)
        functions = (partial(run, given), lambda raw=raw: _host(reference.function(*raw)))
        for function in functions:
            function()
        end = time.perf_counter() + TIMED_SECONDS
        while time.perf_counter() < end or len(times[0]) < 5:
            for function, one in zip(functions, times, strict=True):
                start = time.perf_counter()
                function()
                one.append(time.perf_counter() - start)
        ratios[batch] = statistics.median(times[0]) / statistics.median(times[1])
    return ratios


def _broken(result, precision, limits):
    """A phrase for each limit that is exceeded."""
    allowed, broken = dict(limits[precision]), []
    has_classes = "same_class" in result
    if not has_classes:
        allowed = {"error": allowed.get("error") or ERRORS_WITHOUT_CLASSES[precision]}
    errors = [result.get("error", 0.0)] if precision != "float32" else [
        result.get("error", 0.0), *(one["error"] for one in result["random"].values())
    ]  # fmt: skip
    if "error" in allowed and max(errors) > allowed["error"]:
        broken.append(f"error {max(errors):.2g} > {allowed['error']:g}")
    if has_classes and "agreement" in allowed:
        agreement = result["same_class"] / result["examples"]
        if agreement < allowed["agreement"]:
            broken.append(f"agreement {agreement:.5g} < {allowed['agreement']:g}")
    if has_classes and "accuracy_loss" in allowed:
        loss = -result["accuracy_change"]
        if loss > allowed["accuracy_loss"] + 1e-9:
            broken.append(f"accuracy_loss {loss:.4g} > {allowed['accuracy_loss']:g}")
    return broken


def _fixed_batch(loaded):
    """The batch size of a file, or None if it takes any."""
    sizes = {shape[0] for shape, _ in loaded.inputs.values() if shape}
    return next((int(size) for size in sizes if str(size).isdigit()), None)


def _describe(arrays):
    return {
        name: {"shape": list(shape), "dtype": str(dtype)} for name, (shape, dtype) in arrays.items()
    }


def _host(outputs):
    return [np.asarray(one) for one in jax.device_get(outputs)]
