"""What a run has to show in pictures beside its predictions: augmentation, and first filters."""

import logging
from typing import NamedTuple

import jax
import numpy as np

from data_loader.device_cache import gather
from training.common.trees import pick
from training.distributed.sharding import to_host
from training.engine.binding import bind
from training.engine.compilation import QUICKLY
from training.report.filters import filters
from training.report.images import image_of, row
from utils import UserError

PICTURES, VARIATIONS = 8, 7  # that augmentation is shown of, and of each of them
LOG = logging.getLogger("main")


class Gallery(NamedTuple):
    """What the report shows.

    Attributes:
        augmented: {"index", "before", "after"} of some examples: before, and a row of what
            augmentation made of it. Empty where there is none, or no pictures.
        filters: what `training.report.filters.filters` returns.
    """

    augmented: list
    filters: dict | None


def collect_gallery(config, experiment, params):
    """Returns the Gallery of a run.

    Args:
        config: the run's Config.
        parts: what `build` returned.
        params: the network's parameters.
    """
    loader = experiment.loaders["train"]
    indices = np.unique(np.linspace(0, len(loader.dataset) - 1, PICTURES).astype(int))
    inputs = gather(loader.read(indices)["inputs"])
    if not hasattr(inputs, "dtype") or image_of(inputs[0]) is None:
        return Gallery([], None)
    inputs = np.asarray(inputs)
    batch = jax.ShapeDtypeStruct((loader.batch_size, *inputs.shape[1:]), inputs.dtype)
    if experiment.mesh is not None:  # what follows is for a single device
        params = to_host(params)
    if experiment.seeds > 1:
        params = pick(params, 0)

    def network(params, inputs):
        return experiment.forward(params, inputs, None, False)[0]

    augment = config.data_loader.augment
    augmented = _if_it_can("augmentation", _augmented, augment, indices, inputs)
    if params is None:
        return Gallery(augmented or [], None)
    return Gallery(augmented or [], _if_it_can("filters", filters, network, params, batch))


def _if_it_can(what, function, *args):
    """What a function of the user's functions returns; where one of them refuses, it is told."""
    try:
        return function(*args)
    except UserError as error:  # such as: it takes whole batches only
        LOG.warning("The report shows no %s: %s", what, error)
        return None


def _augmented(named, indices, inputs):
    """Each picture as it is stored, and as augmentation draws it with several keys."""
    if named is None:
        return []
    function = bind(named, "transform", "data_loader.augment", 1, ("key",))

    augment = jax.jit(
        lambda inputs, seed: function(inputs, key=jax.random.key(seed)),
        compiler_options=QUICKLY,
    )
    drawn = [np.asarray(augment(inputs, seed)) for seed in range(VARIATIONS)]
    drawn = _visible(np.stack(drawn, axis=1))
    shown = []
    for index, before, variations in zip(indices.tolist(), inputs, drawn, strict=True):
        after = [image_of(one) for one in variations]
        if None in after:
            return []
        shown.append({"index": index, "before": row([image_of(before)]), "after": row(after)})
    return shown


def _visible(pixels):
    """Numbers that augmentation made of the pixels, from black for the lowest to white."""
    if pixels.dtype == np.uint8:
        return pixels
    low, high = np.nanmin(pixels), np.nanmax(pixels)
    return np.nan_to_num(255 * ((pixels - low) / ((high - low) or 1))).astype(np.uint8)
