"""The images that a report shows beside the predictions: augmentation and first-layer filters."""

import contextlib
import logging
from typing import NamedTuple

import jax
import numpy as np

from data_loader.device_cache import gather
from data_loader.streams import is_stream
from training.common.trees import pick
from training.distributed.sharding import to_host
from training.engine.binding import bind
from training.engine.compilation import QUICKLY
from training.report.filters import first_layer_filters
from training.report.images import image_grid, image_of
from utils import UserError

EXAMPLES, VARIATIONS = 8, 7  # images that augmentation is shown of, and variations of each
LOG = logging.getLogger("main")


class Gallery(NamedTuple):
    """What the report shows of data and network.

    Attributes:
        augmented: "index", "before" and "after" of some examples: the image as stored, and a row
            of its augmented variations. Empty without augmentation, or without images.
        filters: what `training.report.filters.first_layer_filters` returns.
    """

    augmented: list
    filters: dict | None


def collect_gallery(config, experiment, params):
    """Returns the Gallery of a run; without filters if params is None."""
    loader = experiment.loaders["train"]
    indices, inputs = _some_inputs(loader)
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
    augmented = _or_warn("augmentation", _augmented, augment, indices, inputs) or []
    if params is None:
        return Gallery(augmented, None)
    return Gallery(augmented, _or_warn("filters", first_layer_filters, network, params, batch))


def _some_inputs(loader):
    """Returns the indices and the inputs of some examples; of a stream, the first ones."""
    if not is_stream(loader.dataset):
        indices = np.unique(np.linspace(0, len(loader.dataset) - 1, EXAMPLES).astype(int))
        return indices, gather(loader.read(indices)["inputs"])
    with contextlib.closing(loader.batches(epoch=1)) as batches:
        inputs = jax.tree.map(lambda leaf: leaf[:EXAMPLES], next(batches)["inputs"])
    return np.arange(EXAMPLES), inputs


def _or_warn(what, function, *args):
    """What a function returns that calls the user's code; None with a warning if that refuses."""
    try:
        return function(*args)
    except UserError as error:  # for example, it takes whole batches only
        LOG.warning("The report shows no %s: %s", what, error)
        return None


def _augmented(named, indices, inputs):
    """Each image as stored, and as augmentation changes it with several keys."""
    if named is None:
        return []
    function = bind(named, "transform", "data_loader.augment", 1, ("key",))
    augment = jax.jit(
        lambda inputs, seed: function(inputs, key=jax.random.key(seed)), compiler_options=QUICKLY
    )
    variations = [np.asarray(augment(inputs, seed)) for seed in range(VARIATIONS)]
    variations = _to_uint8(np.stack(variations, axis=1))
    shown = []
    for index, before, after in zip(indices.tolist(), inputs, variations, strict=False):
        images = [image_of(one) for one in after]
        if None in images:
            return []
        before = image_grid([image_of(before)])
        shown.append({"index": index, "before": before, "after": image_grid(images)})
    return shown


def _to_uint8(pixels):
    """Pixels as uint8; other numbers are scaled from black for the lowest to white."""
    if pixels.dtype == np.uint8:
        return pixels
    low, high = np.nanmin(pixels), np.nanmax(pixels)
    return np.nan_to_num(255 * ((pixels - low) / ((high - low) or 1))).astype(np.uint8)
