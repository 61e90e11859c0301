"""Errors of the functions a config names, in one line: where, what was got, how to fix it."""

import contextlib
import re
import sysconfig
import traceback
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np

from training.common.labels import are_labels
from training.common.measure import FunctionError, named_numbers
from training.engine.shapes import check_optax_shapes, check_shapes
from utils import ROOT, UserError, signature_of

FAULTS = (TypeError, ValueError, LookupError, AttributeError, NameError, ArithmeticError)
LINES = 4  # of a traceback that a message shows
ARGUMENTS = {  # else inputs
    "loss": ("outputs", "targets"), "metric": ("outputs", "targets"), "sampler": ("labels",),
    "report": ("inputs", "outputs", "targets"),
}  # fmt: skip
# JAX's own messages for these are a page long.
HINTS = {
    jax.errors.TracerBoolConversionError: "whether this is true is not known while JAX traces the "
    "function: use jnp.where or jax.lax.cond in place of if",
    jax.errors.TracerArrayConversionError: "NumPy cannot compute with what JAX traces: use "
    "jax.numpy in place of numpy",
    jax.errors.UnexpectedTracerError: "a value of an earlier call was kept and used again: the "
    "function must be pure, all that it needs coming in and all that it changes going out",
    jax.errors.ConcretizationTypeError: "this needs a number, which is not known while JAX traces "
    "the function: take it from a shape or from the config",
}


def wrap_user_function(function, name, kind, where):
    """Returns the function, its errors and results that do not fit raised as FunctionError.

    `name` is what the config calls it, `kind` a key of HOMES, `where` its place in the config.
    """

    checked = set()  # the types of outputs and targets that are known to fit

    @contextlib.contextmanager
    def errors(args):
        try:
            yield
        except UserError:
            raise
        except FAULTS as error:
            got = _described(args, kind)
            raise FunctionError(f"{where}: {name} of {got}: {reason_of(error)}") from error

    def call(*args, **named):
        with errors(args):
            result = function(*args, **named)
        if kind == "model":
            _check_pair(result, f"{where}: {name}")
        return result

    def measure(outputs, targets, **given):
        args = (outputs, targets)
        if is_optax:
            with errors(args):
                check_optax_shapes(plain, *args)
        if are_labels(*args):
            args = (outputs, targets.astype(np.int32))  # smaller types overflow when counted on
        result = call(*args, **given)
        types = _described(args, kind)
        if types not in checked:
            _check_values(result, args, f"{where}: {name}{_line_of(plain)}", kind)
            weight = [given["weight"]] if "weight" in given else []

            def of_examples(outputs, targets, *weight):
                named = given | ({"weight": weight[0]} if weight else {})
                return function(outputs, targets, **named)

            with errors(args):
                check_shapes(of_examples, (*args, *weight), result)
            checked.add(types)
        return result

    plain = getattr(function, "func", function)  # the arguments of a config are bound by `partial`
    is_optax = getattr(plain, "__module__", "").startswith("optax")
    measure.__signature__ = signature_of(plain)  # says what a loss asks for
    call.__doc__ = plain.__doc__  # for the report
    return measure if kind in ("loss", "metric") else call


def wrap_compute(compute, name, where):
    """Returns an aggregated metric's `compute(total, weight)`, its errors as FunctionError."""

    def call(total, weight):
        with _metric_errors(f"{where}: {name}: its result of the sum {np.shape(total)}"):
            result = compute(total, weight)
            named_numbers(name, result)
        return result

    return call


def wrap_over_the_epoch(metric, name, where):
    """Returns a metric over the epoch as a function that returns {name: number}."""

    def call(outputs, targets):
        with _metric_errors(f"{where}: {name} of {_described((outputs, targets), 'metric')}"):
            return named_numbers(name, metric(outputs, targets))

    return call


@contextlib.contextmanager
def _metric_errors(what):
    try:
        yield
    except UserError:
        raise
    except FAULTS as error:
        raise FunctionError(f"{what}: {reason_of(error)}") from error


@contextlib.contextmanager
def catch_leaked_tracers():
    """Reports a value that was kept from one call to the next, which JAX notices late."""
    try:
        yield
    except jax.errors.UnexpectedTracerError as error:
        lines = re.findall(r"^(/.+):(\d+):\d+ \(", str(error), re.MULTILINE)
        users = [f" ({_shown(file)}:{line})" for file, line in lines if _is_the_users(file)]
        raise FunctionError(HINTS[type(error)] + "".join(users[-1:])) from error


def reading_error(error):
    """Returns the FunctionError for what a data set raised while it was read, or None."""
    frames = traceback.extract_tb(error.__traceback__)
    reads = [one for one in frames if Path(one.filename) == ROOT / "data_loader" / "base.py"]
    if isinstance(error, UserError) or not any(one.name.endswith("_batch") for one in reads):
        return None
    return FunctionError(f"a batch cannot be read: {reason_of(error)}")


@contextlib.contextmanager
def explained():
    """Raises as UserError whatever the functions of a config raise while they are traced."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # a function named in the config may raise anything
        frames = traceback.extract_tb(error.__traceback__)[1:]
        own = [one for one in frames if "site-packages" not in one.filename]
        lines = [f"  {one.filename}:{one.lineno}, in {one.name}: {one.line}" for one in own]
        shown = "\n".join(lines[-LINES:])
        name = type(error).__name__
        raise UserError(
            f"the network, a loss, a metric or an optimizer does not accept what it is given, or "
            f"what the config names as its arguments.\n{shown}\n{name}: {error}"
        ) from error


def _check_pair(result, where):
    """Refuses what is not (outputs, params)."""
    if not isinstance(result, tuple) or len(result) != 2:
        got = type(result).__name__ + (f" of {len(result)}" if isinstance(result, tuple) else "")
        got = _kind(result) if hasattr(result, "shape") else got
        raise FunctionError(
            f"{where} returned {got}; expected two things, as in: return outputs, layer.params"
        )
    if not isinstance(result[1], Mapping):
        raise FunctionError(
            f"{where} returned {type(result[1]).__name__} as its params; expected a dict of "
            "arrays, which it is given the next time, as in: return outputs, layer.params"
        )


def _check_values(result, args, where, kind):
    """Refuses what is not a value for each example, or a dict of such by name."""
    batch = np.shape(jax.tree.leaves(args[1])[0])[0]
    named = result if isinstance(result, dict) else {None: result}
    got = f"{where} of {_described(args, kind)} returned"
    if not named or not all(name is None or isinstance(name, str) for name in named):
        raise FunctionError(f"{got} {result}; expected names with their values: {{'kl': values}}")
    for name, values in named.items():
        of = "" if name is None else f" for {name!r}"
        if not hasattr(values, "shape"):
            kinds = f"{type(values).__name__}{of}"
            raise FunctionError(
                f"{got} {kinds}; expected an array of a value for each of the {batch} examples, or "
                "a dict of such by name"
            )
        if values.shape[:1] != (batch,):
            raise FunctionError(
                f"{got} shape {values.shape}{of}; expected a value for each of the {batch} "
                "examples. It must not average or sum over the batch"
            )


def _line_of(function):
    """ " (training/loss.py:12)", where a function of the user's begins, or ""."""
    code = getattr(function, "__code__", None)
    if code is None or not _is_the_users(code.co_filename):
        return ""
    return f" ({_shown(Path(code.co_filename))}:{code.co_firstlineno})"


def reason_of(error):
    """Returns the message of an error, and the user's line that raised it."""
    hint = next((hint for kind, hint in HINTS.items() if isinstance(error, kind)), None)
    words = hint or str(error).partition("\n")[0].rstrip(".")
    if not isinstance(error, TypeError | ValueError | UserError):
        words = f"{type(error).__name__}: {words}"
    frames = traceback.extract_tb(error.__traceback__)
    users = [one for one in frames if _is_the_users(one.filename)]
    if not users or _refuses_on_purpose(frames[-1]):
        return words
    return f"{words} ({_shown(users[-1].filename)}:{users[-1].lineno}: {users[-1].line})"


def _is_the_users(file):
    """Whether a file is the user's: neither a library's nor the template's machinery.

    Of training/ the files are the user's (loss.py, metrics.py), its folders are not.
    """
    path = Path(file)
    machinery = path.is_relative_to(ROOT / "model" / "modules") or (
        path.is_relative_to(ROOT / "training") and path.parent != ROOT / "training"
    )
    library = path.is_relative_to(sysconfig.get_path("stdlib")) or "site-packages" in path.parts
    return path.is_file() and not machinery and not library


def _refuses_on_purpose(frame):
    """Whether a loss or metric of the template raised this itself: then its words say enough."""
    of_training = Path(frame.filename).parent in (ROOT / "training", ROOT / "training" / "common")
    return of_training and frame.line.startswith("raise ")


def _shown(file):
    path = Path(file)
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


def _described(args, kind):
    """ "outputs float32 (128, 10), targets int32 (128,)"."""
    names = ARGUMENTS.get(kind, ("inputs",))
    return ", ".join(f"{name} {_kind(tree)}" for name, tree in zip(names, args, strict=False))


def _kind(tree):
    named = jax.tree_util.tree_leaves_with_path(tree)
    return " ".join(
        f"{jax.tree_util.keystr(path)} {getattr(leaf, 'dtype', type(leaf).__name__)} "
        f"{np.shape(leaf)}".strip()
        for path, leaf in named
    )
