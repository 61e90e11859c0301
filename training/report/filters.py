"""The filters of a network's first layer, as images."""

import jax
import numpy as np
from PIL import Image

from training.report.images import channels_first, image_grid

FILTERS = 64  # shown, the first ones
NEGATIVE, POSITIVE = (38, 139, 214), (230, 110, 30)  # RGB, distinct for the colour-blind
FULL_COLOUR = 99  # percentile of the weights' magnitudes that has the full colour
PRODUCTS = ("dot_general", "conv_general_dilated")
INPUT = "input"


def first_layer_filters(network, params, inputs):
    """Returns the first layer's filters as the template shows them, or None if it has none.

    A filter is a kernel of a convolution, larger than one pixel, or a feature's weights for all
    pixels of a grey image in a fully connected layer.

    Args:
        network: function of params and inputs.
        params: its parameters.
        inputs: (batch, ...) images for `training.report.images.image_of`, or their shape and dtype.
    """
    path, weights = first_weights(network, params, inputs) or ("", np.zeros(()))
    kernels = _kernels(weights, inputs.shape[1:])
    if kernels is None or not np.isfinite(kernels).all():
        return None
    count, height, width, channels = kernels.shape
    images = _draw(kernels[:FILTERS])
    columns = min(len(images), 16 if max(height, width) <= 8 else 8)
    return {
        "path": path,
        "count": count,
        "shown": len(images),
        "size": f"{height} × {width}",
        "colour": channels >= 3,
        "columns": columns,
        "image": image_grid(images, columns),
    }


def first_weights(network, params, inputs):
    """Returns (path, array) of the first weights that the inputs are multiplied with, or None.

    The computation is traced, not run. Everything computed from the inputs is followed until it is
    multiplied or convolved with something computed from a single array of the parameters.
    """
    leaves = jax.tree_util.tree_leaves_with_path(params)
    traced = jax.make_jaxpr(network)(params, inputs)
    sources = [frozenset([index]) for index in range(len(leaves))] + [frozenset([INPUT])]
    found, _ = _first_product(traced.jaxpr, sources)
    if found is None:
        return None
    path, leaf = leaves[found]
    return jax.tree_util.keystr(path, simple=True, separator="/"), np.asarray(leaf)


def _first_product(jaxpr, sources):
    """The index of the parameter that the input is multiplied with first, or None.

    Args:
        jaxpr: a traced computation.
        sources: for each of its arguments, the set of parameters and inputs it depends on. Those of
            its results are returned too.
    """
    known = dict(zip(jaxpr.invars, sources, strict=True))
    for equation in jaxpr.eqns:
        operands = [_sources(variable, known) for variable in equation.invars]
        if equation.primitive.name in PRODUCTS:
            for one, other in (operands, operands[::-1]):
                if INPUT in one and INPUT not in other and len(other) == 1:
                    return next(iter(other)), []
        results = [frozenset().union(*operands)] * len(equation.outvars)
        for inner in _inner_jaxprs(equation):
            count = len(inner.invars)  # the first argument of a condition is its predicate
            if count <= len(operands):
                found, inner_results = _first_product(inner, operands[len(operands) - count :])
                if found is not None:
                    return found, []
                if len(inner_results) == len(results):
                    results = inner_results
        known.update(zip(equation.outvars, results, strict=True))
    return None, [_sources(variable, known) for variable in jaxpr.outvars]


def _sources(variable, known):
    """What a variable depends on; a literal number depends on nothing, and is not hashable."""
    return frozenset() if hasattr(variable, "val") else known.get(variable, frozenset())


def _inner_jaxprs(equation):
    """Yields the computations inside an equation: of a jitted function, a branch, a loop."""
    for value in equation.params.values():
        for one in value if isinstance(value, tuple | list) else (value,):
            if hasattr(one, "eqns"):
                yield getattr(one, "jaxpr", one)


def _kernels(weights, shape):
    """Weights as (features, height, width, channels), or None if they are no filters of images."""
    if len(shape) == 2:
        shape = (*shape, 1)
    elif channels_first(shape):
        shape = (*shape[1:], shape[0])
    height, width, channels = shape
    if weights.ndim == 4:
        if weights.shape[2] == channels:  # (height, width, channels, features)
            weights = weights.transpose(3, 0, 1, 2)
        elif weights.shape[1] == channels:  # (features, channels, height, width)
            weights = weights.transpose(0, 2, 3, 1)
        else:
            return None
        return weights if weights[0, ..., 0].size > 1 else None
    if weights.ndim == 2 and channels == 1:  # of more channels, the order is not known here
        if weights.shape[0] == height * width:
            weights = weights.T
        if weights.shape[1] == height * width:
            return weights.reshape(-1, height, width, 1)
    return None


def _draw(kernels):
    """An image for each, on one scale: colours around grey, or blue, transparent, orange."""
    kernels = kernels.astype(np.float32)
    kernels = np.clip(kernels / (np.percentile(np.abs(kernels), FULL_COLOUR) or 1), -1, 1)
    if kernels.shape[-1] >= 3:
        pixels = np.round(127.5 * (1 + kernels[..., :3]))
    else:
        kernels = kernels[..., :1]
        hue = np.where(kernels < 0, np.float32(NEGATIVE), np.float32(POSITIVE))
        pixels = np.concatenate([hue, np.round(255 * np.abs(kernels))], axis=-1)
    return [Image.fromarray(one) for one in pixels.astype(np.uint8)]
