"""Distillation: a small network learns what a large one, which stays as it is, makes of its inputs.

Hinton et al. 2015, https://arxiv.org/abs/1503.02531.
"""

import jax

from model.modules import Layers
from training.loss import cross_entropy


def pair(x, student, teacher, *, params=None, key=None, train=False):
    """Calls two networks with the same inputs.

    Args:
        x: inputs of both
        student: {"network": function, "args": {name: value}}
        teacher: the same; `training.freeze` keeps it as it is, and it computes as in evaluation

    Returns:
        outputs: {"logits": of the student, "teacher": logits of the teacher}
        params: student, teacher
    """
    layer = Layers(params, key, train)
    logits = layer("student", student["network"], x, **student["args"])
    wanted = layer("teacher", teacher["network"], x, **teacher["args"])
    return {"logits": logits, "teacher": jax.lax.stop_gradient(wanted)}, layer.params


def distillation(outputs, labels, *, temperature=4.0, share=0.9):
    """Computes the cross-entropy with the teacher's probabilities, and that with the labels.

    Args:
        outputs: of `pair`.
        labels: (batch,) integers.
        temperature: both networks' logits are divided by it, so that small probabilities count.
        share: of the first in the sum; it is multiplied by the square of the temperature, since
            its gradients are divided by that.

    Returns:
        {"soft": (batch,), "hard": (batch,)}: their sum is trained.
    """
    wanted = jax.nn.softmax(outputs["teacher"] / temperature)
    soft = cross_entropy(outputs["logits"] / temperature, wanted)
    hard = cross_entropy(outputs["logits"], labels)
    return {"soft": share * temperature**2 * soft, "hard": (1 - share) * hard}


def labels_alone(outputs, labels):
    """Computes the student's cross-entropy, for comparison."""
    return cross_entropy(outputs["logits"], labels)


def accuracy(outputs, labels):
    """Computes the accuracy of the student, and that of the teacher."""
    return {
        name: outputs[part].argmax(-1) == labels
        for name, part in (("accuracy", "logits"), ("teacher_accuracy", "teacher"))
    }
