"""The functions of training, compiled one by one as a run compiles them together."""

from training.engine import step
from training.engine.compilation import compile_functions


def make_init(*args, **named):
    """Returns the jitted `init(batch) -> state`."""
    return compile_functions(step.make_init(*args, **named), _nothing, _nothing)[0]


def make_update(*args, **named):
    """Returns the jitted `update(state, batch) -> (state, measured)`."""
    return compile_functions(_nothing, step.make_step(*args, **named), _nothing)[1]


def make_evaluate(*args, **named):
    """Returns the jitted `evaluate(params, batch) -> (measured, outputs)`."""
    return compile_functions(_nothing, _nothing, step.make_evaluate(*args, **named))[2]


def _nothing(*_):  # stands for the functions that are not asked for
    return None
