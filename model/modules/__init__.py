"""The layers that networks consist of; core.py explains their protocol."""

from model.modules.attention import attend, attend_heads, attention
from model.modules.conv import conv2d
from model.modules.core import (
    Layers,
    as_float,
    layer_options,
    located,
    stack,
    watch_layers,
    wrap_layers,
)
from model.modules.dense import embedding, linear
from model.modules.dropout import drop_path, dropout
from model.modules.norm import batch_norm, group_norm, layer_norm, rms_norm
from model.modules.operators import plain_operators
from model.modules.pooling import average_pool, global_average_pool, max_pool

__all__ = [
    "Layers",
    "as_float",
    "attend",
    "attend_heads",
    "attention",
    "average_pool",
    "batch_norm",
    "conv2d",
    "drop_path",
    "dropout",
    "embedding",
    "global_average_pool",
    "group_norm",
    "layer_norm",
    "layer_options",
    "linear",
    "located",
    "max_pool",
    "plain_operators",
    "rms_norm",
    "stack",
    "watch_layers",
    "wrap_layers",
]
