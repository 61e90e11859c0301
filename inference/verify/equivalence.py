"""The equivalence check of an export: each file, in its own runtime, against the JAX network.

Every file is run on the whole test set, and on the inputs of trials.py in batches of several sizes,
one after the other in one session, and compared with the jitted JAX network as training evaluates
it. A file beyond a limit is rejected.
"""

import re
import statistics
import time
from functools import partial

import numpy as np

from inference.verify.reference import to_numpy
from inference.verify.runtimes import load, signature_faults
from inference.verify.stablehlo import TIMED
from inference.verify.trials import FAR, random_inputs
from training.common.differences import differences, magnitude
from utils import UserError

TIMED_SECONDS = 0.3  # for each file and batch
SHOWN = 10  # numbers of an output that the table shows
TEST_SET, RANGE = "test set", "--range NAME=LOWEST..HIGHEST"

# "error": largest difference, as a share of the outputs' largest magnitude; of float32 files on all
#     inputs, of others on the test set. Of integers, the share that differ.
# "agreement": least share of the decisions on the test set that are the same: the likeliest class
#     of softmax, yes or no of each sigmoid. In a near tie of the network's logits either is right.
# "accuracy_loss": largest allowed loss of test accuracy; 0.001 is 0.1 points.
LIMITS = {
    "float32": {"error": 2e-5, "agreement": 1.0},
    "float16": {"error": 1e-2, "agreement": 0.9995},
    "dynamic": {"error": 0.1, "agreement": 0.99, "accuracy_loss": 0.001},
    "int8": {"error": 0.2, "agreement": 0.98, "accuracy_loss": 0.005},
}
LIMITS["int8-io"] = LIMITS["int8"]
LIMIT_NAMES = ("error", "agreement", "accuracy_loss")
TIE = 4e-5  # of two logits, as a share of the largest: each may be off by half of it in float32


def parse_limits(changes):
    """Returns LIMITS with the changes that --limit names: "KIND.NAME=VALUE"."""
    limits = {kind: dict(named) for kind, named in LIMITS.items()}
    for change in changes:
        match = re.fullmatch(r"([\w-]+)\.(\w+)=([\d.eE+-]+)", change)
        kind, name, number = match.groups() if match else (None, None, None)
        if kind not in limits or name not in LIMIT_NAMES:
            raise UserError(
                f"--limit: {change!r}; expected KIND.NAME=VALUE, KIND one of {', '.join(limits)}, "
                f"NAME one of {', '.join(LIMIT_NAMES)}"
            )
        limits[kind][name] = float(number)
    return limits


def check(path, precision, reference, limits, timed=TIMED):
    """Measures one exported file and compares it with the network.

    Args:
        path: the file.
        precision: key of the limits: "float32", "float16", "dynamic" or "int8".
        reference: Reference.
        limits: {precision: {name: number}}.
        timed: the batches whose latency is measured, if the file keeps within its limits.

    Returns:
        JSON values; "broken" is a list with a phrase for each limit that the file exceeds.
    """
    try:
        return _check(path, precision, reference, limits, timed)
    except Exception as error:  # each runtime has exceptions of its own
        reason = " ".join(str(error).split())[:200]
        return {"file": path.name, "broken": [f"its runtime cannot run it: {reason}"]}


def _check(path, precision, reference, limits, timed):
    loaded = load(path, own=True)
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
        "inputs": _describe(loaded.inputs, loaded.scales),
        "outputs": _describe(loaded.outputs, loaded.scales),
        "batch": fixed or "any",
        "broken": _interface(path, loaded, reference) if operators else [],
    }
    if result["broken"]:
        return result
    result |= _on_test_set(run, reference, fixed)
    result["trials"] = _on_trials(run, reference, fixed, result["errors"])
    errors = _limited_errors(result, precision)
    result["error"] = max(one["error"] for one in errors.values())
    result["broken"] = _broken(result, errors, limits[precision])
    if not result["broken"]:
        result["latency"] = _latency(run, reference, (fixed,) if fixed else timed)
    return result


def _interface(path, loaded, reference):
    """A phrase for each kind of array, if names, order, shapes or dtypes are others."""
    broken = signature_faults(path) if path.suffix == ".tflite" else []
    for kind in ("inputs", "outputs"):
        got = {name: (shape[1:], dtype) for name, (shape, dtype) in getattr(loaded, kind).items()}
        wanted = {one.name: (one.shape, np.dtype(one.dtype)) for one in getattr(reference, kind)}
        if list(got.items()) != list(wanted.items()):
            words = ["; ".join(f"{name} {dtype} {shape}" for name, (shape, dtype) in one.items())
                     for one in (got, wanted)]  # fmt: skip
            broken.append(f"its {kind} are {words[0]}, those of the network {words[1]}")
    return broken


def _on_test_set(run, reference, fixed):
    """Errors of each output, agreement and accuracy over the whole test set."""
    if not reference.batches:
        return {"examples": 0, "errors": {}}
    computed, wanted = [], []
    for inputs, outputs in reference.batches:
        computed.append(_in_batches(run, reference.feed(*inputs), fixed))
        wanted.append(outputs)
    computed, wanted = (
        [np.concatenate(one) for one in zip(*outputs, strict=True)]
        for outputs in (computed, wanted)
    )
    names = [one.name for one in reference.outputs]
    errors = {
        name: differences(one, other) | {"magnitude": magnitude(other)}
        for name, one, other in zip(names, computed, wanted, strict=True)
    }
    result = {"examples": len(wanted[0]), "errors": errors}
    if reference.kind != "none":
        pair = computed[reference.logits], wanted[reference.logits]
        (guesses, _), (right, margin) = (_decisions(one, reference.kind) for one in pair)
        tie = margin <= TIE * magnitude(pair[1])
        result |= {
            "same_class": int(((guesses == right) | tie).sum()),
            "decisions": right.size,
        }
    if reference.labels is not None:
        accuracy, before = ((one == reference.labels).mean() for one in (guesses, right))
        result |= {"accuracy": float(accuracy), "accuracy_change": float(accuracy - before)}
    first = [one[0].reshape(-1)[:SHOWN].tolist() for one in computed]
    result["first_output"] = dict(zip(names, first, strict=True))
    return result


def _decisions(logits, kind):
    """What is decided, the likeliest class or yes and no, and by what margin."""
    if kind == "sigmoid":
        return logits > 0, np.abs(logits)
    if logits.shape[-1] == 1:
        return logits.argmax(-1), np.full(logits.shape[:-1], np.inf)
    two = np.partition(logits, -2)[..., -2:]
    return logits.argmax(-1), two[..., 1] - two[..., 0]


def _on_trials(run, reference, fixed, errors):
    """{trial: {output: differences}}; all in one session, whatever the batch sizes."""
    found, names = {}, [one.name for one in reference.outputs]
    scales = {name: one["magnitude"] for name, one in errors.items()}
    for trial in reference.trials:
        computed = _in_batches(run, reference.feed(*trial.inputs), fixed)
        found[trial.name] = {}
        for name, one, other, own in zip(names, computed, trial.outputs, trial.own, strict=True):
            scales.setdefault(name, magnitude(other))
            found[trial.name][name] = differences(one, other, own, scales[name])
    return found


def _in_batches(run, inputs, fixed):
    """Runs a file on a batch of any size; with a fixed batch in pieces, the last one filled up."""
    if not fixed:
        return run(inputs)
    count, pieces = len(inputs[0]), []
    for start in range(0, count, fixed):
        rows = np.arange(start, start + fixed) % count
        pieces.append(run([one[rows] for one in inputs]))
    return [np.concatenate(one)[:count] for one in zip(*pieces, strict=True)]


def _latency(run, reference, batches):
    """{batch: time of the file over that of the jitted network}: medians of alternating calls."""
    ratios = {}
    for batch in batches:
        raw = random_inputs(reference.spans, batch)
        times = ([], [])
        given = reference.feed(*raw)
        functions = (partial(run, given), lambda raw=raw: to_numpy(reference.function(*raw)))
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


def _limited_errors(result, precision):
    """{(output, where): differences}, of the inputs that a precision is limited on."""
    errors = {(name, TEST_SET): one for name, one in result["errors"].items()}
    for trial, outputs in result["trials"].items():
        if precision == "float32" or (not result["errors"] and trial.startswith("random")):
            errors |= {(name, trial): one for name, one in outputs.items()}
    return errors


def _broken(result, errors, allowed):
    """A phrase for each limit that is exceeded; of each output its largest error."""
    broken, seen = [], set()
    for (name, where), one in sorted(errors.items(), key=lambda pair: -pair[1]["error"]):
        if one["error"] > allowed["error"] and name not in seen:
            seen.add(name)
            fault = f": {one['fault']}" if "fault" in one else ""
            advice = f"; if no input is as large, say what they are: {RANGE}" * (where == FAR)
            broken.append(
                f"error {one['error']:.2g} > {allowed['error']:g} (output {name}, {where}){fault}"
                f"{advice}"
            )
    if "same_class" in result:
        agreement = result["same_class"] / max(1, result["decisions"])
        if agreement < allowed["agreement"]:
            broken.append(f"agreement {agreement:.5g} < {allowed['agreement']:g}")
    if "accuracy" in result:
        loss = -result["accuracy_change"]
        if loss > allowed.get("accuracy_loss", 1) + 1e-9:
            broken.append(f"accuracy_loss {loss:.4g} > {allowed['accuracy_loss']:g}")
    return broken


def _fixed_batch(loaded):
    """The batch size of a file, or None if it takes any."""
    sizes = {shape[0] for shape, _ in loaded.inputs.values() if shape}
    return next((int(size) for size in sizes if str(size).isdigit()), None)


def _describe(arrays, scales):
    return {
        name: {"shape": list(shape), "dtype": str(scales.get(name, {}).get("dtype", dtype))}
        | {key: one for key, one in scales.get(name, {}).items() if key != "dtype"}
        for name, (shape, dtype) in arrays.items()
    }
