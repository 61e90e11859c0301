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
from training.engine.compilation import QUICKLY
from training.report.filters import first_layer_filters
from training.report.images import annotated, image_grid, image_of
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
    indices, examples = _some_examples(loader)
    inputs = examples["inputs"]
    if not hasattr(inputs, "dtype") or image_of(inputs[0]) is None:
        return Gallery([], None)
    batch = jax.ShapeDtypeStruct((loader.batch_size, *inputs.shape[1:]), inputs.dtype)
    if experiment.mesh is not None:  # what follows is for a single device
        params = to_host(params)
    if experiment.seeds > 1:
        params = pick(params, 0)

    def network(params, inputs):
        return experiment.forward(params, inputs, None, False)[0]

    augmented = []
    if config.data_loader.augment:
        augmented = _or_warn("augmentation", _augmented, experiment.augment, indices, examples)
        augmented = augmented or []
    if params is None:
        return Gallery(augmented, None)
    return Gallery(augmented, _or_warn("filters", first_layer_filters, network, params, batch))


def _some_examples(loader):
    """Returns the indices of some examples, and their batch; of a stream, the first ones."""
    if not is_stream(loader.dataset):
        indices = np.unique(np.linspace(0, len(loader.dataset) - 1, EXAMPLES).astype(int))
        return indices, jax.tree.map(np.asarray, gather(loader.read_examples(indices)))
    with contextlib.closing(loader.batches(epoch=1)) as batches:
        first = jax.tree.map(lambda leaf: leaf[:EXAMPLES], next(batches))
    return np.arange(EXAMPLES), first


def _or_warn(what, function, *args):
    """What a function returns that calls the user's code; None with a warning if that refuses."""
    try:
        return function(*args)
    except (UserError, TypeError, ValueError) as error:  # such as: it takes whole batches only
        LOG.warning("The report shows no %s: %s", what, error)
        return None


def _augmented(augment, indices, batch):
    """Each image as stored, and as augmentation changes it with several keys."""
    jitted = jax.jit(
        lambda batch, seed: augment(batch, jax.random.key(seed)), compiler_options=QUICKLY
    )
    variations = [jax.device_get(jitted(batch, seed)) for seed in range(VARIATIONS)]
    several = jax.tree.map(lambda *leaves: np.stack(leaves, 1), *variations)
    # Of each example a row: a transform may make several pictures of one, in a dict.
    inputs = [_to_uint8(leaf) for leaf in jax.tree.leaves(several["inputs"])]
    shown = []
    for row, index in enumerate(indices.tolist()):
        images = [
            annotated(leaf[row, at], pick(several["targets"], (row, at)))
            for leaf in inputs
            for at in range(VARIATIONS)
        ]
        if None in images:
            return []
        before = image_grid([annotated(batch["inputs"][row], pick(batch["targets"], row))])
        shown.append({"index": index, "before": before, "after": image_grid(images)})
    return shown


def _to_uint8(pixels):
    """Pixels as uint8; other numbers are scaled from black for the lowest to white."""
    if pixels.dtype == np.uint8:
        return pixels
    low, high = np.nanmin(pixels), np.nanmax(pixels)
    return np.nan_to_num(255 * ((pixels - low) / ((high - low) or 1))).astype(np.uint8)
