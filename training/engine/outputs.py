"""What the outputs of a run's network are: as its config says, else as its loss tells."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from training.common import outputs as kinds
from training.config import OUTPUT_KINDS
from training.engine.binding import bind
from utils import UserError

# The losses whose targets are classes, and yes or no; of any other loss the outputs are values.
SOFTMAX = {
    "cross_entropy", "focal", "kl_divergence", "softmax_cross_entropy",
    "safe_softmax_cross_entropy", "softmax_cross_entropy_with_integer_labels",
    "poly_loss_cross_entropy", "multiclass_hinge_loss",
    "multiclass_logistic_loss", "multiclass_perceptron_loss", "multiclass_sparsemax_loss",
}  # fmt: skip
SIGMOID = {"binary_cross_entropy", "sigmoid_binary_cross_entropy", "sigmoid_focal_loss"}


class Output(NamedTuple):
    """What a network's outputs are.

    Attributes:
        kind: "softmax", "sigmoid" or "none"; the latter as well where there is a function.
        why: the kind and where it is from, in words.
        name: of the config's own function, or None.
        function: outputs -> what a person reads, in jax.numpy; None without one.
    """

    kind: str
    why: str
    name: str | None = None
    function: Callable | None = None

    def check(self, outputs):
        """Refuses outputs, or their shapes, that this does not fit: before anything is computed."""
        if self.function:
            jax.eval_shape(self.function, outputs)
        elif self.kind != "none" and not (hasattr(outputs, "shape") or "logits" in outputs):
            raise UserError(
                f"output: {self.kind}, but the network returns several outputs, of which none is "
                'called "logits"; expected one, or a dict with that key, or output=none'
            )

    def exported(self, outputs):
        """Returns the outputs of an exported file: those of the config's function, or as they are.

        Probabilities are made by whoever uses the file: logits are exact, and lose nothing when
        they are quantised.
        """
        return self.function(outputs) if self.function else outputs

    def read(self, outputs):
        """Returns outputs as a person reads them, in NumPy: probabilities, or values.

        Of several outputs those called "logits" alone are logits.
        """
        if self.function:
            return jax.tree.map(np.asarray, self.function(outputs))
        if isinstance(outputs, dict):
            return outputs | {
                name: getattr(kinds, self.kind)(one)
                for name, one in outputs.items()
                if name == "logits"
            }
        return outputs if isinstance(outputs, tuple | list) else getattr(kinds, self.kind)(outputs)


def make_output(config, source):
    """Returns the Output of a Config; `source` is its name, for messages."""
    named = config.output
    if named and named.name not in OUTPUT_KINDS:
        function = bind(named, "output", f"{source}: output", 1)
        return Output("none", f"what {named.name} makes of them (output)", named.name, function)
    if named:
        return Output(named.name, f"{named.name} (output)")
    losses = [one.loss.name.rpartition(":")[2] for one in config.training.all_groups().values()]
    for kind, known in {"softmax": SOFTMAX, "sigmoid": SIGMOID}.items():
        if known.issuperset(losses):
            return Output(kind, f"{kind}, by the loss {losses[0]}; `output` may say otherwise")
    hint = "values as they are, by the loss {}; if they are logits, say output=softmax or sigmoid"
    return Output("none", hint.format(", ".join(dict.fromkeys(losses))))
