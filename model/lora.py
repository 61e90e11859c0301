"""LoRA, "Low-Rank Adaptation of Large Language Models" (https://arxiv.org/abs/2106.09685).

Each `linear` layer that a path names adds x · lora_down · lora_up to what it returns. These two
small matrices are trained in place of the large one; docs/fine_tuning.md has the config.
"""

import re

from jax.nn.initializers import zeros

from model.modules import Layers, linear, wrap_layers
from model.modules.dense import LECUN_NORMAL


def lora(x, network, paths, rank=8, scale=1.0, hyper=None, *, params=None, key=None, train=False):
    """Calls a network with adapters beside its linear layers; at first its outputs are the same.

    Args:
        x: inputs of the network
        network: the function, {"name": ...} in a config
        paths: of its linear layers: ["blocks/*/attn/qkv"]; `**/` stands for any names before
        rank: of the product of the two matrices; the fewer, the fewer are trained
        scale: what the product is multiplied by
        hyper: the network's own arguments, {name: value}

    Returns: outputs and params of the network, with lora_down and lora_up beside the kernels

    Raises:
        ValueError: a path is that of no linear layer.
    """
    unused = set(paths)

    def adapt(path, function):
        found = {one for one in paths if function is linear and _fits(path, one)}
        unused.difference_update(found)
        return adapted if found else function

    def adapted(x, features, *args, params, key, train, **named):
        layer = Layers(params, key, train)
        down = layer.array("lora_down", (x.shape[-1], rank), LECUN_NORMAL)
        up = layer.array("lora_up", (rank, features), zeros)
        merged = params if train or params is None else merge_lora(params, scale)
        y, own = linear(x, features, *args, params=merged, key=key, train=train, **named)
        if train:
            y = y + scale * (x @ down.astype(x.dtype)) @ up.astype(x.dtype)
        return y, params or own | layer.params

    with wrap_layers(adapt):
        result = network(x, **(hyper or {}), params=params, key=key, train=train)
    if unused:
        raise ValueError(f"lora: no linear layer has the path {sorted(unused)[0]!r}.")
    return result


def merge_lora(params, scale=1.0):
    """Returns a network's params with the adapters added to its kernels, as it has them itself."""
    if "lora_up" in params:
        rest = {name: one for name, one in params.items() if not name.startswith("lora_")}
        return rest | {"kernel": params["kernel"] + scale * params["lora_down"] @ params["lora_up"]}
    return {k: v if hasattr(v, "shape") else merge_lora(v, scale) for k, v in params.items()}


def _fits(path, glob):
    glob = re.escape(glob).replace(r"\*\*/", "(?:.*/)?").replace(r"\*", "[^/]*")
    return re.fullmatch(glob, path)
