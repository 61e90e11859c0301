"""What a network's outputs are: the functions that make of them what a person reads.

The config names one as `output`: one of these, or one of your own as "package.module:function",
which may use jax.numpy and goes into the exported files. See docs/outputs.md.
"""

import numpy as np


def softmax(logits):
    """Returns the probabilities of classes of which one is right, however large the logits are.

    Args:
        logits: (..., classes).

    Returns:
        (..., classes) float64, of sum 1; NaN of a network that diverged stays NaN.
    """
    powers = np.array(logits, np.float64)  # a copy, which is changed in place
    with np.errstate(invalid="ignore"):
        powers -= powers.max(-1, keepdims=True)
        np.exp(powers, out=powers)
        powers /= powers.sum(-1, keepdims=True)
    return powers


def sigmoid(logits):
    """Returns the probability of "yes" of each log-odds by itself: of labels that may all be right.

    Args:
        logits: (...).

    Returns:
        (...) float64.
    """
    return 0.5 * (1 + np.tanh(np.asarray(logits, np.float64) / 2))


def none(outputs):
    """Returns the outputs as they are: values, such as those of a regression."""
    return outputs
