"""Functions that the config names, with their arguments bound to their signatures."""

from functools import partial

from training.common.measure import GIVEN, asked_of
from training.config import HOMES, Named, is_named, nested
from training.engine.user_code import wrap_compute, wrap_over_the_epoch, wrap_user_function
from utils import UserError, call, check_arguments, resolve, signature_of


def bind(named, kind, where, positional, keywords=()):
    """Returns the named function with its arguments from the config bound to it.

    Args:
        named: name and args.
        kind: where to look it up, a key of HOMES.
        where: its place in the config.
        positional: how many arguments it gets by position.
        keywords: names of those that it gets by name.
    """
    function = resolve(named.name, HOMES[kind], f"{where}.name")
    args = construct(named.args, kind, f"{where}.args")
    if not isinstance(args, dict):
        raise UserError(f"{where}.args: expected an object with argument names, got a list")
    _check_keywords(function, keywords, f"{where}.name")
    if kind == "loss":
        keywords = _asked(function, f"{where}.name")
    taken = (*parameters_of(function)[:positional], *keywords)
    check_arguments(function, args, f"{where}.args", taken)
    if kind == "callback":  # its errors are those of its caller, training/engine/callbacks.py
        return partial(function, **args)
    name = named.name.rpartition(":")[2]
    if hasattr(function, "over_the_epoch"):
        bound = wrap_over_the_epoch(partial(function, **args), name, where)
        bound.over_the_epoch = True
        return bound
    bound = wrap_user_function(partial(function, **args), name, kind, where)
    if hasattr(function, "compute"):
        bound.compute = wrap_compute(function.compute, name, where)
    return bound


def construct(value, kind, where):
    """Returns an argument from the config with every {"name": ...} in it replaced.

    With "args" the function is called and its result stands there, as for a learning rate's
    schedule; without "args" the function itself does. A sampler is called later, with its labels.
    """
    if is_named(value) and kind == "sampler":
        return bind(Named(**value), kind, where, 3)
    if is_named(value):
        function = resolve(value["name"], HOMES[kind], f"{where}.name")
        if "args" not in value:
            return function
        args = construct(value["args"], kind, f"{where}.args")
        return call(function, args, f"{where}.args")
    if isinstance(value, dict):
        return {
            key: construct(*nested(key, one, kind), f"{where}.{key}") for key, one in value.items()
        }
    if isinstance(value, list):
        return [construct(one, kind, f"{where}.{index}") for index, one in enumerate(value)]
    return value


def _check_keywords(function, keywords, where):
    """Refuses a function without a keyword that it is to be called with."""
    signature = signature_of(function)
    if signature is None:
        return
    parameters = signature.parameters
    missing = [name for name in keywords if name not in parameters]
    if missing and not any(one.kind is one.VAR_KEYWORD for one in parameters.values()):
        name, wanted = getattr(function, "__name__", str(function)), ", ".join(keywords)
        raise UserError(
            f"{where}: {name} takes no {missing[0]!r}; it is called with {wanted} by name, "
            "so write them at the end of its arguments, after a *"
        )


def _asked(function, where):
    """Returns what a loss asks for by naming it; refuses such a name that is not given to it.

    So neither does a hyperparameter become the step, nor does the step stay at its default.
    """
    asked, signature = asked_of(function), signature_of(function)
    for name, one in list(signature.parameters.items())[2:] if signature else ():
        plain = one.default is one.empty or one.default is None or isinstance(one.default, bool)
        if name in GIVEN and not (name in asked and plain):
            raise UserError(
                f"{where}: {function.__name__}{signature}: a loss that names {name!r} is given "
                f"the {name} of training. Write it after a *, without a default, as in "
                f"f(outputs, targets, *, {name}); a hyperparameter needs another name"
            )
    return asked


def parameters_of(function):
    """The names of a function's parameters, as far as Python knows them."""
    signature = signature_of(function)
    return list(signature.parameters) if signature else []
