"""The networks of benchmarks/peers.py in this template, trained by train.py's own epoch.

python of_template.py NETWORK [--device cpu] [--dtype float32] [key.path=value ...]
"""

import json
import logging
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax.numpy as jnp
import numpy as np
from frameworks import common
from jax.nn import relu
from loop import loop_epoch

import utils
from data_loader.dataloader import IdxImages
from model.modules import Layers, batch_norm, conv2d, dropout, global_average_pool, linear, max_pool
from training.config import read_config
from training.distributed.preemption import StopSignal
from training.engine.build import build
from training.engine.compilation import keep_freed_memory
from training.engine.initialize import count_parameters, first_batch
from training.engine.progress import Progress

SETTINGS = [
    "data_loader.augment=null",
    f'training.optimizer={{"name": "adamw", "args": {{"learning_rate": {common.LEARNING_RATE}, '
    f'"weight_decay": {common.WEIGHT_DECAY}}}}}',
]
NETWORKS = {
    "sample": [],
    "lenet": ["model=benchmarks.frameworks.of_template:lenet"],
    "vit": ["model=vit"],
    "mlp": ["model=mlp"],
    "resnet18": ["model=benchmarks.frameworks.of_template:resnet18"],
    "gpt": [
        "model.name=examples.text.characters:writer",
        'model.args={"features": 384, "depth": 6, "heads": 6}',
        "data_loader.preprocess=null", "training.metrics=[]", "training.monitor=min test_loss",
    ],
}  # fmt: skip


class Arrays:
    """The data of a network that is not trained on MNIST, in memory."""

    def __init__(self, network, examples):
        inputs, targets = common.windows() if network == "gpt" else common.noise()
        if network == "resnet18":
            inputs = np.ascontiguousarray(np.moveaxis(inputs, -1, 1))
        self.inputs, self.targets = inputs[:examples], targets[:examples].astype(np.int32)

    def __len__(self):
        """Returns the number of examples."""
        return len(self.targets)

    def __getitem__(self, index):
        """Returns an example."""
        return self.inputs[index], self.targets[index]

    def __getitems__(self, indices):
        """Returns the examples at `indices`."""
        return self.inputs.take(indices, axis=0), self.targets.take(indices, axis=0)


class Digits(Arrays):
    """The first digits of MNIST."""

    def __init__(self, examples):
        whole = IdxImages(common.ROOT / "data", "train")
        self.inputs, self.targets = whole.images[:examples], whole.labels[:examples]


def lenet(x, *, params=None, key=None, train=False):
    """The network of pytorch-template; x: (batch, 1, 28, 28), logits: (batch, 10)."""
    layer = Layers(params, key, train)
    x = jnp.moveaxis(x, 1, -1)
    x = layer("conv1", conv2d, x, 10, 5, padding="VALID")
    x = relu(layer("pool1", max_pool, x, 2))
    x = layer("conv2", conv2d, x, 20, 5, padding="VALID")
    x = x * layer("drop_channels", dropout, jnp.ones((len(x), 1, 1, 20), x.dtype), 0.5)
    x = relu(layer("pool2", max_pool, x, 2))
    x = relu(layer("hidden", linear, x.reshape(len(x), -1), 50))
    x = layer("drop", dropout, x, 0.5)
    return layer("head", linear, x, 10), layer.params


def resnet18(x, *, params=None, key=None, train=False):
    """ResNet-18 for pictures of 32 x 32 (He et al., arXiv:1512.03385), x: (batch, 3, 32, 32).

    As for CIFAR: the first convolution is 3 x 3, and no pooling follows it. Logits: (batch, 10).
    """
    layer = Layers(params, key, train)
    x = jnp.moveaxis(x, 1, -1)
    x = layer("stem", conv2d, x, 64, 3, bias=False)
    x = relu(layer("stem_norm", batch_norm, x))
    for stage, features in enumerate((64, 128, 256, 512)):
        for block in range(2):
            stride = 2 if stage and not block else 1
            x = layer(f"block{stage}{block}", basic_block, x, features, stride)
    return layer("head", linear, layer("pool", global_average_pool, x), 10), layer.params


def basic_block(x, features, stride, *, params=None, key=None, train=False):
    """Two convolutions, and the input added to what they make of it."""
    layer = Layers(params, key, train)
    y = layer("conv1", conv2d, x, features, 3, stride, padding=1, bias=False)
    y = relu(layer("norm1", batch_norm, y))
    y = layer("norm2", batch_norm, layer("conv2", conv2d, y, features, 3, padding=1, bias=False))
    if stride > 1:
        x = layer("shortcut", conv2d, x, features, 1, stride, padding="VALID", bias=False)
        x = layer("shortcut_norm", batch_norm, x)
    return relu(x + y), layer.params


def overrides(options):
    """Returns what to change in the sample's config for a network."""
    name, batch = options.network, f"data_loader.train.args.batch_size={options.batch}"
    settings = [*SETTINGS, batch, *NETWORKS[name], f"training.compute_dtype={options.dtype}"]
    settings += ["training.compiler_options=null"] if NETWORKS[name] else []  # those of the sample
    if name in ("resnet18", "gpt"):
        kind, args = "Arrays", {"network": name, "examples": options.examples}
    else:
        kind, args = "Digits", {"examples": options.examples}
    named = json.dumps({"name": f"benchmarks.frameworks.of_template:{kind}", "args": args})
    size = f"data_loader.test.args.batch_size={options.batch}"
    return [*settings, size, *(f"data_loader.{s}.args.dataset={named}" for s in ("train", "test"))]


def main(options):
    """Serves epochs of a network."""
    keep_freed_memory()
    source = common.ROOT / "config.json"
    config = read_config(source, [*overrides(options), *options.rest])
    experiment = build(config, str(source))
    state = experiment.init(first_batch(experiment))
    parameters = count_parameters(state.params, experiment.seeds)
    with tempfile.TemporaryDirectory() as folder, StopSignal() as stop:
        folder = Path(folder)
        utils.set_up_logging(folder)
        with open(folder / "console", "w") as console:
            logging.getLogger("main").handlers[0].setStream(console)

            def epoch():
                nonlocal state
                progress = Progress()
                state, _ = loop_epoch(config, experiment, state, folder, stop, progress)
                return progress.epoch.results()["loss"]

            common.serve(parameters, epoch)


if __name__ == "__main__":
    main(common.parse_options())
