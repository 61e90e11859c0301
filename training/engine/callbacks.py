"""The callbacks of a run: functions that the config names, or that `fit` is given."""

import inspect
from collections.abc import Callable
from typing import NamedTuple

import jax

from training.common.every import Every, parse_every
from training.common.measure import FunctionError
from training.config import Callback
from training.engine.binding import bind
from training.engine.user_code import reason_of
from utils import UserError, signature_of


class BoundCallback(NamedTuple):
    """A function of the run with its other arguments bound, and how often it is called."""

    function: Callable
    every: Every
    place: str  # where it is named and its name, for messages

    def __call__(self, run):
        """Calls it; whatever it raises becomes an error that names its line."""
        try:
            self.function(run)
        except jax.errors.JaxRuntimeError:  # of the device, or of a process that is lost
            raise
        except (Exception, SystemExit) as error:
            raise FunctionError(f"{self.place}, step {run.step}: {reason_of(error)}") from error


def bind_callbacks(config, source, functions=()):
    """Returns the BoundCallbacks of a config, and those of further functions.

    Args:
        config: the Config.
        source: its name, for messages.
        functions: of them each is a function of the run, or such and how often: (f, "500 steps").

    Raises:
        UserError: there is no such function, or it cannot be called with the run alone.
    """
    found, source = [], "config" if isinstance(source, dict) else source
    for index, named in enumerate(config.training.callbacks):
        where = f"{source}: training.callbacks.{index}"
        function = bind(named, "callback", where, 1)
        found.append(_checked(function, named.every, f"{where}: {named.name.rpartition(':')[2]}"))
    for index, one in enumerate([functions] if callable(functions) else functions):
        function, every = one if isinstance(one, tuple) and len(one) == 2 else (one, None)
        name = getattr(function, "__name__", type(function).__name__)
        place = f"fit: callbacks[{index}]: {name}"
        if not callable(function):
            raise UserError(f"{place}: expected a function f(run), or (f, '500 steps')")
        found.append(_checked(function, every or Callback(name=name).every, place))
    return found


def _checked(function, every, place):
    """Returns the BoundCallback of a function that can be called with the run."""
    signature = signature_of(function)
    expected = "a callback is called with the run alone, f(run); what else it takes is in its args"
    try:
        if signature is not None:
            signature.bind(None)
        every = parse_every(every)
    except TypeError as error:
        raise UserError(f"{place}{signature}: {error}; {expected}") from None
    except ValueError as error:
        raise UserError(f"{place}: {error}") from None
    plain = inspect.unwrap(getattr(function, "func", function))
    if (
        inspect.isgeneratorfunction(plain)
        or inspect.iscoroutinefunction(plain)
        or (inspect.isclass(plain))
    ):
        raise UserError(f"{place}: expected a plain function f(run), no class, generator or async")
    return BoundCallback(function, every, place)
