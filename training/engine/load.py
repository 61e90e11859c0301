"""A trained network as a function, without the data it was trained with."""

import jax
import numpy as np

from training.checkpoint.naming import find
from training.checkpoint.reading import read
from training.checkpoint.restore import network_params, restore
from training.common.kept_code import code_of
from training.config import read_config
from training.engine.augment import bind_preprocess
from training.engine.binding import bind
from training.engine.compilation import compile_predict
from training.engine.step import make_forward


def load(path, trust=False, own_code=False):
    """Returns `predict(inputs) -> outputs` of a trained network.

        predict = load("saved/MNIST_Sample/<run>")
        digits = predict(images).argmax(-1)

    It computes what evaluation computes: the run's own code and config, preprocessing included.

    Args:
        path: a checkpoint, or a run folder, which stands for its best checkpoint (its latest where
            no best was saved).
        trust: run the code of a run that was made elsewhere.
        own_code: use this project's `model/`, not the run's.

    Returns:
        A function of inputs as the run's data set has them, (batch, ...) or a dict of such; it
        returns NumPy arrays. Of several seeds it is the first.

    Raises:
        UserError: there is no such checkpoint, it does not fit its code, or that is not trusted.
    """
    checkpoint = find(path, prefer_best=True)
    source = checkpoint.parent / "config.json"
    arrays = network_params(read(checkpoint)[0])
    with code_of(checkpoint.parent, trust, own_code):
        config = read_config(source)
        model = bind(config.model, "model", f"{source}: model", 1, ("params", "key", "train"))
    if config.training.seeds > 1:
        arrays = {name: array[0] for name, array in arrays.items()}
    preprocess = bind_preprocess(config.data_loader, source)
    forward = make_forward(model, preprocess, config.training.compute_dtype)
    compiled, known = compile_predict(forward), []

    def predict(inputs):
        if not known:  # the shape of the parameters follows from that of the inputs
            _, template = jax.eval_shape(
                lambda inputs: forward(None, inputs, jax.random.key(0), False), inputs
            )
            known.append(restore(template, arrays, where=checkpoint))
        return jax.tree.map(np.asarray, compiled(known[0], inputs))

    return predict
