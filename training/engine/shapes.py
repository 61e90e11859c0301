"""Shapes of outputs and targets that do not belong together, whatever the size of the batch.

NumPy broadcasts (batch, 1) with (batch,) to a table of all pairs of examples, and (batch,) with
(batch, classes) where both happen to be one number. Then a mean of it is plausible and wrong. So a
loss or metric is traced once more, for another number of examples, which equals no other size.
"""

import re

import jax
import numpy as np

LABELLED = (  # those of optax whose targets are labels; its other losses compare equal shapes
    "softmax_cross_entropy_with_integer_labels", "multiclass_hinge_loss", "ntxent",
    "multiclass_logistic_loss", "multiclass_perceptron_loss", "multiclass_sparsemax_loss",
)  # fmt: skip


def check_shapes(function, args, returned):
    """Refuses a loss or metric that mixes examples by broadcasting.

    Args:
        function: (outputs, targets, ...) -> a value, or more, for each example, or a dict of such.
        args: the outputs of the network, (batch, ...) or a tree; the targets of the batch; and
            what else it is given for each example.
        returned: what the function returned for these.

    Raises:
        ValueError: what does not belong together.
    """
    shapes = _shapes(returned)
    sizes = [*shapes, *(leaf.shape for leaf in jax.tree.leaves(args))]
    batch, other = shapes[0][0], 1 + max(size for shape in sizes for size in shape)
    outputs = args[0]
    if hasattr(outputs, "shape") and (not outputs.shape or outputs.shape[0] % batch):
        raise ValueError(
            f"outputs have shape {outputs.shape}, expected one for each of the {batch} examples"
        )

    def resized(leaf):
        size = leaf.shape[0] if leaf.shape else 0
        if size % batch or not size:  # not of the examples
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
        return jax.ShapeDtypeStruct((size // batch * other, *leaf.shape[1:]), leaf.dtype)

    args = jax.tree.map(resized, args)
    _refuse_pairs(function, args, other, batch)
    results = _shapes(jax.eval_shape(function, *args))
    for shape, result in zip(shapes, results, strict=True):
        if result != (other, *shape[1:]):
            raise ValueError(
                f"it returned shape {shape}, and {result} for {other} examples: examples are "
                "compared with each other. Give outputs and targets one shape"
            )


def _shapes(values):
    """The shapes of values, of a dict of values in the order of their names."""
    named = values if isinstance(values, dict) else {"": values}
    return [np.shape(named[name]) for name in sorted(named)]  # JAX sorts them as well


def check_optax_shapes(function, outputs, targets):
    """Refuses shapes that a loss of optax would broadcast."""
    shapes = [getattr(one, "shape", None) for one in (outputs, targets)]
    if function.__name__ not in LABELLED and None not in shapes and shapes[0] != shapes[1]:
        raise ValueError(
            f"outputs have shape {shapes[0]}, but targets {shapes[1]}, expected equal shapes; for "
            "labels, the number of a class, use cross_entropy"
        )


def _refuse_pairs(function, args, other, batch):
    """Refuses a broadcast in which the axis of the examples meets another axis."""
    with jax.numpy_rank_promotion("raise"):
        try:
            jax.eval_shape(function, *args)
        except ValueError as error:
            if "rank_promotion" not in str(error):
                raise
            found = re.findall(r"\(([\d, ]*)\)", str(error).partition(" and with ")[0])
            shapes = [tuple(int(size) for size in one.split(",") if size.strip()) for one in found]
            rank = max(map(len, shapes))
            if any(other in shape for shape in shapes if len(shape) < rank):
                words = " with ".join(str(shape) for shape in shapes).replace(str(other), "batch")
                raise ValueError(
                    f"it broadcasts {words}, which compares each example with every other. Give "
                    "outputs and targets one shape: targets[:, None], or outputs[:, 0]"
                ).with_traceback(error.__traceback__) from None
