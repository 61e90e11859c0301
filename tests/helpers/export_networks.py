"""Networks that the tests of exports name in configs."""

import jax

from model.modules import Layers, batch_norm, conv2d, global_average_pool, layer_norm, linear


def small(x, *, params=None, key=None, train=False):
    """A network with most kinds of layers."""
    layer = Layers(params, key, train)
    x = jax.numpy.moveaxis(x, 1, -1)
    x = layer("stem", conv2d, x, 4, 4, stride=4, bias=False)
    x = x + layer("depthwise", conv2d, layer("norm", layer_norm, x), 4, 3, groups=4)
    x = jax.nn.gelu(layer("expand", conv2d, x, 8, 1), approximate=False)
    x = jax.nn.relu(layer("statistics", batch_norm, x))
    x = layer("pool", global_average_pool, x)
    return layer("head", linear, x, 10), layer.params


def running_product(x, *, params=None, key=None, train=False):
    """A network with an operator that TFLite has and ONNX does not."""
    layer = Layers(params, key, train)
    x = layer("product", _product, x)
    return layer("head", linear, x, 10), layer.params


def sorting(x, *, params=None, key=None, train=False):
    """A network with an operator that TFLite does not have."""
    layer = Layers(params, key, train)
    x = layer("order", _sort, x.reshape(len(x), -1))
    return layer("head", linear, x, 10), layer.params


def _product(x, *, params=None, key=None, train=False):
    return jax.numpy.cumprod(1 + x.mean((1, 2)) / 10, axis=-1), {}


def _sort(x, *, params=None, key=None, train=False):
    return jax.numpy.sort(x), {}
