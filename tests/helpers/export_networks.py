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


def seven_dimensions(x, *, params=None, key=None, train=False):
    """A network with an operator that ONNX has and TFLite does not."""
    layer = Layers(params, key, train)
    x = layer("folded", _fold, x)
    return layer("head", linear, x, 10), layer.params


def running_product(x, *, params=None, key=None, train=False):
    """A network with an operator that neither format has by itself."""
    layer = Layers(params, key, train)
    x = layer("product", _product, x)
    return layer("head", linear, x, 10), layer.params


def sorting(x, *, params=None, key=None, train=False):
    """A network with an operator that both formats have under another name."""
    layer = Layers(params, key, train)
    x = layer("order", _sort, x.reshape(x.shape[0], -1))
    return layer("head", linear, x, 10), layer.params


def _product(x, *, params=None, key=None, train=False):
    return jax.numpy.cumprod(1 + x.mean((1, 2)) / 10, axis=-1), {}


def _fold(x, *, params=None, key=None, train=False):
    x = x.reshape(x.shape[0], 4, 7, 1, 2, 7, 2)
    return jax.numpy.transpose(2 * x, (0, 6, 4, 1, 3, 2, 5)).reshape(x.shape[0], -1), {}


def _sort(x, *, params=None, key=None, train=False):
    return jax.numpy.sort(x), {}
