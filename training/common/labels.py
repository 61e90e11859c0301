"""Labels: targets that are the number of a class for each example, or for each position."""

import jax.numpy as jnp
import numpy as np

NOT_ONE = 1e-3  # how far the sum of a target's probabilities may be from 1


def are_labels(outputs, targets):
    """Whether targets can only be labels: whole numbers, one for each vector of several outputs.

    Args:
        outputs: what the network returned, or its shapes.
        targets: those of the batch, or their shapes.
    """
    if not (hasattr(outputs, "shape") and hasattr(targets, "dtype")):
        return False
    whole = np.dtype(targets.dtype).kind in "biu"
    return whole and targets.shape == outputs.shape[:-1] and outputs.shape[-1] > 1


def are_probabilities(logits, targets):
    """Whether targets are a probability for each class, as mixup makes them, and not labels."""
    return targets.shape == logits.shape and jnp.issubdtype(targets.dtype, jnp.floating)


def sums_to_one(probabilities):
    """Whether they sum to 1, (batch, ...): those of several labels at once do not."""
    return jnp.abs(probabilities.sum(-1) - 1) <= NOT_ONE


def right_classes(logits, targets):
    """Returns the class of each target, int32, and where there is one, a bool or (batch, ...).

    Args:
        logits: (batch, ..., classes).
        targets: (batch, ...) whole numbers, or probabilities of the shape of the logits.
    """
    if are_probabilities(logits, targets):
        return targets.argmax(-1).astype(jnp.int32), sums_to_one(targets)
    return class_labels(logits, targets), True


def class_labels(logits, labels):
    """Returns labels as int32, or says which targets, losses and metrics belong together.

    Args:
        logits: (batch, ..., classes).
        labels: (batch, ...) whole numbers of any type; smaller types overflow when counted on.

    Raises:
        ValueError: they are no labels of these logits.
    """
    if labels.shape == logits.shape:
        raise ValueError(
            f"targets have the shape of the outputs, {labels.shape}, expected the number of a "
            "class for each example. One-hot: return targets.argmax(-1), or float probabilities "
            "that sum to 1 (or use softmax_cross_entropy and one_hot_accuracy). Several labels "
            "at once: use binary_cross_entropy and binary_accuracy"
        )
    if not np.issubdtype(labels.dtype, np.integer) and labels.dtype != bool:
        raise ValueError(
            f"labels are {labels.dtype}, expected integers, the number of the right class"
        )
    if labels.shape != logits.shape[:-1]:
        raise ValueError(
            f"outputs have shape {logits.shape}, but labels {labels.shape}, expected "
            f"{logits.shape[:-1]}: one for each vector of outputs"
        )
    if logits.shape[-1] == 1:
        raise ValueError(
            "the network has 1 output, which tells no classes apart; give it an output for each "
            "class, or for yes and no use binary_cross_entropy and targets of the outputs' shape"
        )
    return labels.astype(np.int32)


def same_shape(outputs, targets):
    """Returns the targets; raises for shapes that would broadcast: (batch, 1) with (batch,)."""
    if outputs.shape != targets.shape:
        raise ValueError(f"outputs have shape {outputs.shape}, but targets {targets.shape}")
    return targets
