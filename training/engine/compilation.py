"""The one place where training is compiled, and the cache that keeps what was compiled."""

import contextlib
import ctypes
import glob
import hashlib
import os
import platform
import re
import sys
import time
import warnings
from pathlib import Path

import jax
import jaxlib

from utils import UserError

# Random initialisers are slow to compile and run once: optimise little. Level 0 changes bits.
QUICKLY = {"xla_backend_optimization_level": 1}
# What XLA's library for CPUs may compute there: by default that includes convolutions, whose
# gradients then take up to four times as long as by XLA's own means (benchmarks/layers.py).
FAST = {
    "cpu": {
        "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_DOT,LIBRARY_FUSION_TYPE_REDUCE"
    }
}
# Of glibc's mallopt(): parameter (malloc.h) and value.
KEEP_FREED_MEMORY = {
    "M_ARENA_MAX": (-8, 1),  # for all threads: an arena of a thread has at most 64 MiB
    "M_MMAP_THRESHOLD": (-3, 2**29),  # bytes; larger arrays remain the kernel's
    "M_TRIM_THRESHOLD": (-1, -1),  # return nothing to the kernel
}
DAMAGED_CACHE = re.compile("Error reading persistent compilation cache entry for '(.+?)'")
BEING_WRITTEN = 60  # seconds since an entry was written, in which it may be incomplete


def compile_functions(init, update, evaluate, options=None):
    """Returns the three functions of training, jitted; see `training.engine.build.Experiment`.

    The new state takes the memory of the old one. `options` of XLA, {platform: {name: value}},
    take the place of `FAST` on their platform.

    Raises:
        UserError: XLA has no such option.
    """
    platform = jax.default_backend()
    fast = FAST.get(platform)
    if options and platform in options:
        fast = options[platform]
        _check_options(fast, platform)
    return (
        compile_init(init),
        jax.jit(update, donate_argnums=0, compiler_options=fast),
        jax.jit(evaluate, compiler_options=fast),
    )


def _check_options(options, platform):
    for name, value in options.items():
        try:
            jax.jit(lambda: 0, compiler_options={name: value}).lower().compile()
        except (jax.errors.JaxRuntimeError, ValueError, TypeError) as error:
            raise UserError(
                f"training.compiler_options.{platform}.{name}: XLA does not take {value!r}: {error}"
            ) from error


def compile_init(init):
    """Returns a function that makes random parameters, jitted."""
    return jax.jit(init, compiler_options=QUICKLY)


def compile_predict(forward):
    """Returns `predict(params, inputs) -> outputs`, jitted."""

    def predict(params, inputs):
        return forward(params, inputs, None, False)[0]

    return jax.jit(predict, compiler_options=FAST.get(jax.default_backend()))


def keep_freed_memory():
    """Has the C library keep the memory that an update has freed, for the next one.

    Each update allocates its intermediate values. From 32 MiB on, glibc takes them from Linux and
    returns them after it, and Linux fills each page with zeros again: 64,000 pages in an update of
    the ViT, a third of its time. To be called before JAX starts its threads; later, and without
    glibc, it changes nothing. The memory stays with the process until it ends: after some updates a
    few times the size of the largest arrays, as what is freed is split.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    for parameter, value in KEEP_FREED_MEMORY.values() if mallopt else ():
        mallopt(parameter, value)


def use_compilation_cache():
    """Keeps compiled functions in the user's cache folder, so that the next start is quick.

    There is one folder per machine and version of jaxlib, as compiled code runs only on its own
    kind of processor. An entry left half-written by a killed process makes JAX warn and compile
    again at every start: then the entries of that function are removed, except those of the last
    minute, which a living process may be writing.
    """
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    machine = hashlib.sha256("\n".join([_processor(), jaxlib.__version__]).encode()).hexdigest()
    folder = Path(base) / "jax-template" / machine[:16]
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    show = warnings.showwarning

    def remove_damaged(message, *rest, **named):
        if found := DAMAGED_CACHE.match(str(message)):
            _remove_entries(folder, found[1])
            return
        show(message, *rest, **named)

    warnings.showwarning = remove_damaged


def _remove_entries(folder, function):
    """Removes the entries of a function, by its name as JAX has it, that nobody is writing."""
    for path in folder.glob(f"{glob.escape(function)}-*"):
        with contextlib.suppress(OSError):
            if abs(time.time() - path.stat().st_mtime) > BEING_WRITTEN:
                path.unlink()


def _processor():
    """What kind of processor this is, as far as compiled code is concerned."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        wanted = ("model name", "flags", "Features", "CPU part")
        return "\n".join(sorted({line for line in lines if line.startswith(wanted)}))
    except OSError:
        return f"{platform.machine()} {platform.processor()} {sys.platform}"
