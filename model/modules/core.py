"""The protocol of every layer and every network, and the helper class that keeps them short.

    y, params = f(x, *hyper, params=None, key=None, train=False)

The params that a function returns are the params for its next call. `params=None` makes them from
`key`; they are a nested dict of arrays. State that is not trained (running statistics) is part of
the same tree under the name "stats", and is returned updated if `train=True`.
"""

import contextlib
import contextvars
import inspect
import zlib
from collections import Counter
from collections.abc import Mapping

import jax
import jax.numpy as jnp

_path = contextvars.ContextVar("path", default=())  # names of the layers around the current call
_options = contextvars.ContextVar("options", default=None)  # see layer_options
_watcher = contextvars.ContextVar("watcher", default=None)
_wrapper = contextvars.ContextVar("wrapper", default=None)


class Layers:
    """Calls layers by name and collects their parameters, so that networks are straight-line code.

        layer = Layers(params, key, train)
        y = layer("hidden", linear, x, 64)
        shift = layer.array("shift", (64,), jax.nn.initializers.zeros)
        return y + shift, layer.params

    Two calls with the same name share their parameters. The network returns `layer.params`.
    """

    def __init__(self, params, key, train):
        if params is None and key is None:
            raise ValueError(_no_key(inspect.currentframe().f_back))
        if not isinstance(params, Mapping | None):
            function = inspect.currentframe().f_back.f_code.co_name
            raise ValueError(
                f"{located(function)}: expected params to be a dict of named parameters, "
                f"got {type(params).__name__}."
            )
        self.given, self.key, self.train = params, key, train
        self.params = {}
        self._calls = Counter()

    def __call__(self, name, function, x, *hyper, **named_hyper):
        """Returns the output of `function(x, ...)`, called with the params and key of `name`."""
        params = self._find(name)
        if params is None and self.given is not None:
            params = {}  # layers without parameters (dropout, pooling) are not in the tree
        with _inside(name):
            if _wrapper.get() is not None:
                function = _wrapper.get()("/".join(_path.get()), function)
            function = function if _options.get() is None else _with_options(function)
            y, params = function(
                x, *hyper, **named_hyper, params=params, key=self._key(name), train=self.train
            )
            if _watcher.get() is not None:
                _watcher.get()("/".join(_path.get()), y, params)
        if params:
            self.params[name] = params
        return y

    def array(self, name, shape, initializer):
        """Returns the parameter `name` of `shape`; `initializer(key, shape)` creates it."""
        array = self._find(name)
        if array is None:
            if self.given is not None:
                raise ValueError(_misfit(name, "is missing", shape, self.given))
            array = initializer(self._key(name), shape)
        elif array.shape != tuple(shape):
            raise ValueError(_misfit(name, f"has shape {array.shape}", shape, self.given))
        self.params[name] = array
        return array

    def _find(self, name):
        return self.params.get(name, (self.given or {}).get(name))

    def _key(self, name):
        """Returns the key of a layer's next call; crc32 as `hash()` differs between processes."""
        if self.key is None:
            return None
        key, calls = jax.random.fold_in(self.key, zlib.crc32(name.encode())), self._calls[name]
        self._calls[name] += 1
        return jax.random.fold_in(key, calls) if calls else key


def stack(x, blocks, *, params=None, key=None, train=False):
    """Calls layers one after another, under the names "0", "1", and so on.

    Args:
        x: input of the first
        blocks: functions that need nothing but an input, such as `functools.partial` of layers

    Returns:
        y: output of the last
        params: those of each layer
    """
    layer = Layers(params, key, train)
    for index, block in enumerate(blocks):
        x = layer(str(index), block, x)
    return x, layer.params


def as_float(x, *axes):
    """Returns x as a floating-point array; integers become float32.

    Layers compute in this array's dtype, whatever the dtype of their parameters: a network with
    float32 parameters computes in bfloat16 if its input is bfloat16.

    Args:
        x: input of a layer
        axes: names of the required axes; "..." stands for any number of axes

    Raises:
        ValueError: x has other axes.
    """
    x = jnp.asarray(x)
    spare = x.ndim - len(axes)
    if spare < -1 or (spare != 0 and "..." not in axes):
        function = inspect.currentframe().f_back.f_code.co_name
        raise ValueError(
            f"{located(function)}: expected an input of shape ({', '.join(axes)}), got {x.shape}."
        )
    return x if jnp.issubdtype(x.dtype, jnp.inexact) else x.astype(jnp.float32)


def located(function):
    """Returns a function's name with the path of its layer: "conv2d (layer stage1/down)"."""
    path = "/".join(_path.get())
    return f"{function} (layer {path})" if path else function


@contextlib.contextmanager
def watch_layers(watcher):
    """Calls `watcher(path, y, params)` after each layer, while tracing or running un-jitted.

    Args:
        watcher: function of the layer's path ("stage1/norm"), its output and its parameters.
    """
    token = _watcher.set(watcher)
    try:
        yield
    finally:
        _watcher.reset(token)


@contextlib.contextmanager
def wrap_layers(wrapper):
    """Has each layer replaced by what `wrapper(path, function)` returns for it, a function like it.

    Args:
        wrapper: function of the layer's path ("stage1/norm") and the layer itself.
    """
    token = _wrapper.set(wrapper)
    try:
        yield
    finally:
        _wrapper.reset(token)


@contextlib.contextmanager
def layer_options(frozen, remat):
    """Has layers compute otherwise in training, for as long as it is entered.

    Args:
        frozen: function of a layer's path ("stage1/norm"): whether it computes as in evaluation,
            and so all layers in it.
        remat: function of a layer's path: whether the backward pass computes its intermediate
            values again (`jax.checkpoint`) rather than keeping them in memory.
    """
    token = _options.set((frozen, remat))
    try:
        yield
    finally:
        _options.reset(token)


def _with_options(function):
    """Returns the layer's function as the options of its path have it."""
    path = "/".join(_path.get())
    frozen, remat = (option(path) for option in _options.get())

    def layer(x, *hyper, params, key, train, **named_hyper):
        train = train and not frozen

        def call(x, params, key):
            return function(x, *hyper, **named_hyper, params=params, key=key, train=train)

        # What watches layers needs their values, which are not there inside of a checkpoint.
        again = remat and train and _watcher.get() is None
        return (jax.checkpoint(call) if again else call)(x, params, key)

    return layer


@contextlib.contextmanager
def _inside(name):
    token = _path.set((*_path.get(), name))
    try:
        with jax.named_scope(name):  # profiles and exporters show the layer's name
            yield
    finally:
        _path.reset(token)


def _no_key(frame):
    name = frame.f_code.co_name
    return (
        f"{name}: params=None makes new parameters, and that needs a key. "
        f"Call y, params = {name}(x, ..., key=jax.random.key(0)); "
        f"to apply the parameters you have, call {name}(x, ..., params=params)."
    )


def _misfit(name, fault, shape, given):
    path = "/".join((*_path.get(), name))
    return (
        f"parameter {path} {fault}, expected shape {tuple(shape)}. "
        f"The parameters here are {sorted(given or ())}: were they made by this network "
        "with these arguments and this input shape?"
    )
