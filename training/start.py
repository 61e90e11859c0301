"""What happens once, before the first update of a run."""

import functools
import hashlib
import logging
import os
import platform
import shutil
import sys
import traceback
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np

import utils
from training.audit import audit
from training.calls import deal
from training.checkpoint import find, read
from training.config import HOMES, write_config
from training.devices import put_batch, put_state
from training.files import explained
from training.optimizers import evaluation_params
from training.resident import fetch
from training.restore import network_params, restore
from training.trees import pick, split

LOG = logging.getLogger("main")
LINES = 4  # of a traceback that a message shows
CLASSES = 5  # whose names a message shows
DAMAGED_CACHE = "Error reading persistent compilation cache entry"  # how JAX's warning begins


def use_compilation_cache():
    """Keeps compiled functions in the user's cache folder, so that the next start is quick.

    The folder is one per machine and version of jaxlib, as compiled code runs on its own kind of
    processor only. An entry that a killed process left half-written makes JAX warn and compile
    anew at every start: then the folder is emptied.
    """
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    machine = hashlib.sha256("\n".join([_processor(), jaxlib.__version__]).encode()).hexdigest()
    folder = Path(base) / "jax-template" / machine[:16]
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    show = warnings.showwarning

    def heal(message, *rest, **named):
        if str(message).startswith(DAMAGED_CACHE):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True, exist_ok=True)
            return
        show(message, *rest, **named)

    warnings.showwarning = heal


def first_batch(parts):
    """Returns a batch of the training data."""
    return fetch(_stored_batch(parts))


def rehearse(parts, batch):
    """Traces init, update and evaluate without computing anything; returns the state's shapes.

    What arguments of the config make of them fails here, before the run has begun.

    Raises:
        UserError: it does; with the lines of the project's code, and of the user's, it passed.
    """
    try:
        state = jax.eval_shape(parts.init, fetch(batch))
        call, _ = next(deal(iter([batch]), parts.steps_per_call))
        jax.eval_shape(parts.update, state, call)
        _, outputs = jax.eval_shape(parts.evaluate, evaluation_params(state), batch)
        _hold_against_classes(parts, outputs, fetch(batch["targets"]))
        return state
    except utils.UserError:
        raise
    except Exception as error:  # a function named in the config may raise anything
        frames = traceback.extract_tb(error.__traceback__)[1:]
        own = [one for one in frames if "site-packages" not in one.filename]
        lines = [f"  {one.filename}:{one.lineno}, in {one.name}: {one.line}" for one in own]
        told = "\n".join(lines[-LINES:])
        name = type(error).__name__
        raise utils.UserError(
            f"the network, a loss, a metric or an optimizer does not take what it is given, or "
            f"what the config names as its arguments.\n{told}\n{name}: {error}"
        ) from error


def fresh_state(parts, config):
    """Returns the TrainState a new run begins with, pre-trained if the config says so."""
    batch = _stored_batch(parts)
    rehearse(parts, batch)
    state = parts.init(put_batch(fetch(batch), parts.mesh))
    wanted = config.training.checkpoint
    if wanted:
        path = find(wanted.path, prefer_best=True)
        arrays = network_params(read(path)[0])
        fit = functools.partial(restore, arrays=arrays, partial=wanted.partial, where=path)
        if parts.copies == 1:
            params = fit(state.params)
        else:
            copies = [fit(pick(state.params, copy)) for copy in range(parts.copies)]
            params = jax.tree.map(lambda *leaves: jnp.stack(leaves), *copies)
        average = None if state.average is None else split(params)[0]
        state = state._replace(params=params, average=average)
        LOG.info("Pre-trained parameters from %s", path)
    return state


def restored_state(parts, arrays, checkpoint):
    """Returns the TrainState of a checkpoint."""
    template = rehearse(parts, _stored_batch(parts))
    state = restore(template, arrays, where=checkpoint)
    if checkpoint.is_dir():  # then these were but shapes
        from training.orbax_file import load_state

        return load_state(checkpoint, state, parts.mesh)
    return put_state(state, parts.mesh)


def restored_params(parts, arrays, checkpoint):
    """Returns the network's parameters from `network_params` of a checkpoint."""
    template = jax.eval_shape(parts.init, first_batch(parts)).params
    return restore(template, arrays, where=checkpoint)


def count(params, copies=1):
    """Returns the number of trained parameters of one of the copies."""
    return sum(leaf.size for leaf in jax.tree.leaves(split(params)[0])) // copies


def write_run(config, folder, parts, state):
    """Writes what a run is made from: config, environment and the network's code.

    Of a run that goes on, it warns about all that has changed since. Without a folder it does
    nothing.
    """
    if folder is None:
        return
    with explained(folder):
        write_config(config, folder / "config.json")
        if not (folder / "model").exists():
            network = utils.resolve(config.model.name, HOMES["model"])
            utils.keep_code(folder, network.__module__)
        audit(config, folder, parts, count(state.params, parts.copies))


def _stored_batch(parts):
    """The first batch of the training data, as the loader has it: it may hold Rows."""
    batches = parts.loaders["train"].batches(epoch=1)
    try:
        batch = next(batches)
    finally:
        batches.close()
    for path, leaf in jax.tree_util.tree_leaves_with_path(batch):
        dtype = leaf.dtype if hasattr(leaf, "dtype") else np.asarray(leaf).dtype
        if dtype.kind not in "biufcV":  # V: bfloat16 and its like
            name = jax.tree_util.keystr(path, simple=True, separator=".")
            raise utils.UserError(
                f"the training data: {name} of a batch are {dtype}; expected "
                "numbers. Mend the data set, or name a `collate` that makes numbers of them"
            )
    return batch


def _hold_against_classes(parts, outputs, targets):
    """Warns of a network with more or fewer outputs than the data set has names of classes."""
    classes = getattr(parts.loaders["train"].dataset, "classes", None)
    rank = np.ndim(outputs) - (parts.copies > 1) if hasattr(outputs, "shape") else 0
    if classes is None or rank != 2 or np.ndim(targets) != 1 or targets.dtype.kind not in "iu":
        return
    count, wanted = outputs.shape[-1], len(classes)
    names = ", ".join(str(one) for one in classes[:CLASSES]) + ", ..." * (wanted > CLASSES)
    if count != wanted:
        LOG.warning(
            f"The network has {count} outputs, but the data set {wanted} classes ({names}). The "
            f"networks of model/model.py have one for each with model.args.classes={wanted}"
        )


def _processor():
    """What kind of processor this is, as far as compiled code cares."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        wanted = ("model name", "flags", "Features", "CPU part")
        return "\n".join(sorted({line for line in lines if line.startswith(wanted)}))
    except OSError:
        return f"{platform.machine()} {platform.processor()} {sys.platform}"
