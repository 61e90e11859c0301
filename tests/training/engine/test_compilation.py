import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model.modules import conv2d
from training.engine.compilation import compile_functions
from utils import UserError


def step(kernel, x):
    """As an update does it: what comes out takes the place of the first argument."""

    def loss(kernel):
        return jnp.square(conv2d(x, 32, 3, bias=False, params={"kernel": kernel})[0]).sum()

    return kernel - 1e-4 * jax.grad(loss)(kernel)


def arguments():
    x = np.random.default_rng(0).standard_normal((8, 14, 14, 16), np.float32)
    return jnp.full((3, 3, 16, 32), 0.1), x


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="it is about XLA on a CPU")
def test_the_library_that_is_slow_at_convolutions_computes_none_of_them_in_training():
    def by_library(jitted):
        program = jitted.lower(*arguments()).compile().as_text()
        bodies = [body for body in program.split("\n\n") if "convolution(" in body]
        assert bodies
        return any(not body.lstrip().startswith("ENTRY") for body in bodies)

    assert by_library(jax.jit(step))  # once this fails, XLA has changed: measure the forms again
    assert not by_library(compile_functions(step, step, step)[1])
    assert not by_library(compile_functions(step, step, step)[2])


def test_what_is_compiled_for_training_computes_the_same():
    expected = jax.jit(step)(*arguments())
    np.testing.assert_allclose(
        compile_functions(step, step, step)[2](*arguments()), expected, rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(
        compile_functions(step, step, step)[1](*arguments()), expected, rtol=1e-5, atol=1e-6
    )


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="it is about XLA on a CPU")
def test_a_network_may_have_compiler_options_of_its_own():
    _, _, plain = compile_functions(step, step, step, {"cpu": {}, "gpu": {"xla_no_option": 1}})
    program = jax.jit(step).lower(*arguments()).compile().as_text()
    assert plain.lower(*arguments()).compile().as_text() == program
    _, _, usual = compile_functions(step, step, step)
    assert usual.lower(*arguments()).compile().as_text() != program
    with pytest.raises(UserError, match=r"training\.compiler_options\.cpu\.xla_no_option: .*such"):
        compile_functions(step, step, step, {"cpu": {"xla_no_option": 1}})
