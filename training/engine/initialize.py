"""What a run begins with: the state of training, tried out before anything is computed."""

import logging

import jax
import jax.numpy as jnp

from data_loader.device_cache import gather
from training.checkpoint.naming import listed
from training.checkpoint.restore import (
    current_name,
    restore,
    restore_state,
)
from training.common.labels import are_labels
from training.common.trees import named_leaves, split
from training.distributed.sharding import put_batch
from training.engine.class_weights import check_class_weights
from training.engine.out_of_memory import explain_out_of_memory
from training.engine.parts import check_parts, describe, multipliers
from training.engine.pretrained import pretrained_state
from training.engine.refreeze import with_other_frozen
from training.engine.scan import group_batches
from training.engine.splits import check_splits, stored_batch
from training.engine.step import eval_params
from training.engine.user_code import explained
from utils import UserError

LOG = logging.getLogger("main")
FLOAT16 = (
    "float16 takes gradients below 6e-8 for 0 unless the loss is scaled, which is not done here; "
    "expected bfloat16, which is as small and has the range of float32, or float32"
)
CLASSES = 5  # whose names a message shows


def first_batch(experiment):
    """Returns a batch of the training data."""
    return gather(stored_batch(experiment))


def dry_run(experiment, batch):
    """Traces init, update and evaluate without computing anything; returns the state's shapes.

    Arguments of the config that do not fit fail here, before the run has begun, and so do splits of
    the data that do not. The message has the lines of the code where it failed.
    """
    with explained():
        inputs = gather(batch)["inputs"]
        check_parts(experiment.parts, experiment.groups, experiment.forward, inputs)
        state = jax.eval_shape(experiment.init, gather(batch))
        _refuse_float16(state.params)
        call, _ = next(group_batches(iter([batch]), experiment.steps_per_call))
        jax.eval_shape(experiment.update, state, call)
        params = eval_params(state)
        _, outputs = jax.eval_shape(experiment.evaluate, params, batch)
        experiment.output.check(outputs)
        if hasattr(outputs, "shape"):
            check_class_weights(experiment.class_weights, outputs.shape[-1], "outputs")
        _expect_labels(experiment, outputs, gather(batch["targets"]))
    check_splits(experiment, params, batch)
    return state


def initial_state(experiment, batch, config):
    """Returns the TrainState that `experiment.init` makes, once everything has been tried out."""
    with explain_out_of_memory(config, dry_run(experiment, batch)):
        state = experiment.init(put_batch(gather(batch), experiment.mesh))
        return jax.block_until_ready(state)  # else its errors would come up elsewhere


def fresh_state(experiment, config):
    """Returns the TrainState a new run begins with, pre-trained if the config says so."""
    batch = stored_batch(experiment)
    return pretrained_state(experiment, initial_state(experiment, batch, config), config)


def restored_state(experiment, arrays, checkpoint):
    """Returns the TrainState of a checkpoint, of which `arrays` were read with `for_devices`."""
    template = dry_run(experiment, stored_batch(experiment))
    arrays = {current_name(name): array for name, array in arrays.items()}
    arrays = with_other_frozen(experiment, template, arrays, checkpoint)
    return restore_state(template, arrays, checkpoint, experiment.mesh)


def restored_params(experiment, arrays, checkpoint):
    """Returns the network's parameters from `network_params` of a checkpoint."""
    batch = first_batch(experiment)
    template = jax.eval_shape(experiment.init, batch)
    _, outputs = jax.eval_shape(experiment.evaluate, eval_params(template), batch)
    _expect_labels(experiment, outputs, batch["targets"])
    return restore(template.params, arrays, where=checkpoint)


def count_parameters(params, seeds=1):
    """Returns the number of trained parameters of one network."""
    return sum(leaf.size for leaf in jax.tree.leaves(split(params)[0])) // seeds


def part_lines(experiment, params):
    """Yields what to say of parts of the network that are frozen, or learn at their own rate."""
    parts = experiment.parts
    if parts.freeze or parts.learning_rates or parts.layer_decay:
        rates = multipliers(parts, experiment.forward, first_batch(experiment)["inputs"])
        yield from describe(parts, params, rates, experiment.seeds)


def _refuse_float16(params):
    names = [name for name, leaf in named_leaves(params).items() if leaf.dtype == jnp.float16]
    if names:
        raise UserError(f"the network's parameters {listed(names)}: {FLOAT16}")


def _expect_labels(experiment, outputs, targets):
    """Has the loaders refuse targets that are no class, where the outputs say what the classes are.

    Warns of a network with more or fewer outputs than there are names of classes.
    """
    if not are_labels(outputs, targets):
        return
    count = outputs.shape[-1]
    for loader in experiment.loaders.values():
        if hasattr(loader, "expect_classes"):
            loader.expect_classes(count)
    classes = getattr(experiment.loaders["train"], "classes", None)
    if classes is not None and len(classes) != count and targets.ndim == 1:
        wanted = len(classes)
        names = ", ".join(str(one) for one in classes[:CLASSES]) + ", ..." * (wanted > CLASSES)
        LOG.warning(
            f"The network has {count} outputs, but the data set {wanted} classes ({names}). The "
            f"networks of model/model.py have one for each with model.args.classes={wanted}"
        )
