"""Regression on a table: the progression of diabetes after a year, with its uncertainty.

The 442 patients of scikit-learn's `load_diabetes` (Efron et al. 2004,
https://arxiv.org/abs/math/0406456): nine measurements and the sex, and the disease's progression
as a number from 25 to 346. The network predicts a normal distribution rather than a number.
"""

import jax
import jax.numpy as jnp
import numpy as np

from model.modules import Layers, dropout, embedding, linear
from training.metrics import aggregated
from utils import UserError

UNIT = 100.0  # of the targets, so that they and their standard deviation are near 1


class Diabetes:
    """The patients of one split, standardised with the mean and deviation of the training split.

    Args:
        split: "train" or "test".
        test_share: fraction of the patients in the test split.
        seed: of the random split.

    Attributes:
        numbers: (patients, 9) float32: age, body mass index, blood pressure, six of blood serum.
        sex: (patients,) int32, 0 or 1.
        progression: (patients,) float32, in units of 100.

    Raises:
        UserError: there is no such split, or scikit-learn is not installed.
    """

    def __init__(self, split, test_share=0.2, seed=0):
        try:
            from sklearn.datasets import load_diabetes
        except ModuleNotFoundError:
            raise UserError(
                "Diabetes: scikit-learn is not installed; pip install -r requirements-dev.txt"
            ) from None
        if split not in ("train", "test"):
            raise UserError(f"Diabetes: split is {split!r}; expected 'train' or 'test'.")
        table, progression = load_diabetes(return_X_y=True, scaled=False)
        order = np.random.default_rng(seed).permutation(len(table))
        border = round(test_share * len(table))
        rows = {"test": order[:border], "train": order[border:]}
        is_sex = np.arange(table.shape[1]) == 1
        numbers = table[:, ~is_sex]
        mean, deviation = numbers[rows["train"]].mean(0), numbers[rows["train"]].std(0)
        chosen = rows[split]
        self.numbers = ((numbers[chosen] - mean) / deviation).astype(np.float32)
        self.sex = table[chosen, 1].astype(np.int32) - 1
        self.progression = (progression[chosen] / UNIT).astype(np.float32)

    def __len__(self):
        """Returns the number of patients."""
        return len(self.progression)

    def __getitem__(self, index):
        """Returns a patient: a dict of two inputs, and the target."""
        inputs = {"numbers": self.numbers[index], "sex": self.sex[index]}
        return inputs, self.progression[index]


def network(x, feat_dims=(32, 32), drop_rate=0.1, *, params=None, key=None, train=False):
    """Predicts a normal distribution of the target for each patient.

    Args:
        x: {"numbers": (batch, numbers), "sex": (batch,) integers, 0 or 1}
        feat_dims: number of features in each hidden layer
        drop_rate: probability of dropping a hidden feature while training

    Returns:
        outputs: {"mean": (batch,), "log_variance": (batch,)}
        params: the network's parameters
    """
    layer = Layers(params, key, train)
    y = jnp.concatenate([x["numbers"], layer("sex", embedding, x["sex"], 2, 4)], -1)
    for index, features in enumerate(feat_dims):
        y = jax.nn.gelu(layer(f"hidden{index}", linear, y, features))
        y = layer(f"drop{index}", dropout, y, drop_rate)
    mean, log_variance = jnp.moveaxis(layer("head", linear, y, 2), -1, 0)
    return {"mean": mean, "log_variance": log_variance}, layer.params


def normal_log_likelihood(outputs, targets):
    """Computes -log of the predicted probability density at the target.

    Args:
        outputs: those of `network`.
        targets: (batch,).

    Returns:
        (batch,) values in nats.
    """
    log_variance = outputs["log_variance"]
    square = jnp.square(targets - outputs["mean"]) / jnp.exp(log_variance)
    return (square + log_variance + jnp.log(2 * jnp.pi)) / 2


def _r_squared_of(total, weight):
    error, target, square = total
    return float(1 - error / (square - target**2 / weight))


@aggregated(_r_squared_of)
def r_squared(outputs, targets):
    """Computes R², the fraction of the targets' variance that the means explain.

    Args:
        outputs: those of `network`.
        targets: (batch,).

    Returns:
        (batch, 3): squared error, target, its square; aggregated: a number up to 1, which is 0
        for a network that predicts the targets' mean.
    """
    error = targets - outputs["mean"]
    return jnp.stack([jnp.square(error), targets, jnp.square(targets)], -1)


def within_one_deviation(outputs, targets):
    """Returns 1 where the target is within one standard deviation of the mean, else 0.

    Args:
        outputs: those of `network`.
        targets: (batch,).

    Returns:
        (batch,) of 0.0 and 1.0; 0.68 on average if the predicted deviations are right.
    """
    near = jnp.square(targets - outputs["mean"]) <= jnp.exp(outputs["log_variance"])
    return near.astype(jnp.float32)
