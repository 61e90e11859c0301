"""The networks of benchmarks/peers.py in this template, trained by train.py's own epoch.

python of_template.py NETWORK [key.path=value ...]
"""

import logging
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax.numpy as jnp
from frameworks.common import BATCH, LEARNING_RATE, WEIGHT_DECAY, serve
from jax.nn import relu
from loop import loop_epoch

import utils
from model.modules import Layers, conv2d, dropout, linear, max_pool
from training.config import read_config
from training.distributed.preemption import StopSignal
from training.engine.build import build
from training.engine.initialize import count_parameters, first_batch
from training.engine.progress import Progress

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = [
    "data_loader.augment=null",
    f"data_loader.train.args.batch_size={BATCH}",
    f"data_loader.train.args.dataset.args.root={ROOT / 'data'}",
    f"data_loader.test.args.dataset.args.root={ROOT / 'data'}",
    f'training.optimizer={{"name": "adamw", "args": {{"learning_rate": {LEARNING_RATE}, '
    f'"weight_decay": {WEIGHT_DECAY}}}}}',
]
NETWORKS = {
    "sample": [],
    "lenet": ['model={"name": "frameworks.of_template:lenet"}'],
    "vit": ['model={"name": "vit"}'],
    "mlp": ['model={"name": "mlp"}'],
}


def lenet(x, *, params=None, key=None, train=False):
    """The network of pytorch-template; x: (batch, 1, 28, 28), logits: (batch, 10)."""
    layer = Layers(params, key, train)
    x = jnp.moveaxis(x, 1, -1)
    x = layer("conv1", conv2d, x, 10, 5, padding="VALID")
    x = relu(layer("pool1", max_pool, x, 2))
    x = layer("conv2", conv2d, x, 20, 5, padding="VALID")
    x = x * layer("drop_channels", dropout, jnp.ones((len(x), 1, 1, 20)), 0.5)
    x = relu(layer("pool2", max_pool, x, 2))
    x = relu(layer("hidden", linear, x.reshape(len(x), -1), 50))
    x = layer("drop", dropout, x, 0.5)
    return layer("head", linear, x, 10), layer.params


def main():
    """Serves epochs of a network."""
    name, *overrides = sys.argv[1:]
    source = ROOT / "config.json"
    config = read_config(source, [*SETTINGS, *NETWORKS[name], *overrides])
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
                state, seconds = loop_epoch(config, experiment, state, folder, stop, progress)
                return seconds, progress.epoch.results()["loss"]

            serve(parameters, epoch)


if __name__ == "__main__":
    main()
