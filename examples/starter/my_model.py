"""Your network. `model/model.py` has others to start from, `model/modules` has the layers."""

from jax.nn import gelu

from model.modules import Layers, dropout, linear


def network(x, features=32, classes=2, drop_rate=0.1, *, params=None, key=None, train=False):
    """Classifies points.

    Args:
        x: (batch, numbers)
        features: number of features in each hidden layer
        classes: number of classes
        drop_rate: probability of dropping a hidden feature while training

    Returns:
        logits: (batch, classes)
        params: the parameters for the next call; `params=None` makes them from `key`
    """
    layer = Layers(params, key, train)
    x = gelu(layer("hidden1", linear, x, features))
    x = gelu(layer("hidden2", linear, x, features))
    x = layer("drop", dropout, x, drop_rate)
    return layer("head", linear, x, classes), layer.params
