"""How the functions of training are compiled."""

import jax

# Random initialisers are slow to compile and run once: optimise little. Level 0 changes bits.
QUICKLY = {"xla_backend_optimization_level": 1}
# What XLA's library for CPUs may compute there: by default that includes convolutions, whose
# gradients then take up to four times as long as by XLA's own means (benchmarks/layers.py).
FAST = {
    "cpu": {
        "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_DOT,LIBRARY_FUSION_TYPE_REDUCE"
    }
}


def jit_init(init):
    """Jits `init(batch) -> state`."""
    return jax.jit(init, compiler_options=QUICKLY)


def jit_update(update):
    """Jits `update(state, batch) -> (state, measured)`; what comes out takes the state's place."""
    return jax.jit(update, donate_argnums=0, compiler_options=_fast())


def jit_evaluate(evaluate):
    """Jits `evaluate(params, batch) -> (measured, outputs)`."""
    return jax.jit(evaluate, compiler_options=_fast())


def _fast():
    return FAST.get(jax.default_backend())
