"""The example in examples/distill: a student learns from a teacher that stays as it is."""

import json

import numpy as np
import pytest

import train
from examples.distill.distill import distillation
from tests.helpers.project import ROOT
from training.checkpoint.reading import read


def small(values, folder, epochs):
    """A config with tiny networks on a few digits."""
    values["data_loader"]["train"]["args"]["dataset"]["args"]["each"] = 20
    values["data_loader"]["train"]["args"]["batch_size"] = 50
    values["data_loader"]["test"]["args"]["dataset"]["args"]["each"] = 20
    values["data_loader"]["test"]["args"]["batch_size"] = 100
    values["training"] |= {"save_dir": str(folder), "epochs": epochs, "save_every": "1 epoch"}
    values["training"] |= {"evaluate_every": "1 epoch"}
    return values


def test_the_student_is_trained_and_the_teacher_is_that_of_the_checkpoint(tmp_path):
    values = json.loads((ROOT / "examples/finetune/pretrain.json").read_text())
    values["model"]["args"]["features"] = [4, 8]
    teacher = train.fit(small(values, tmp_path, 1)).folder
    values = json.loads((ROOT / "examples/distill/config.json").read_text())
    args = values["model"]["args"]
    args["teacher"]["args"], args["student"]["args"] = {"features": [4, 8]}, {"features": [2, 4]}
    values["training"]["checkpoint"]["path"] = str(teacher)
    run = train.fit(small(values, tmp_path, 2)).folder
    before = read(teacher / "checkpoint-epoch_1.params")[0]
    first, last = (read(run / f"checkpoint-epoch_{epoch}.params")[0] for epoch in (1, 2))
    for name, array in last.items():
        if name.startswith("params/teacher/"):
            own = name.replace("teacher/", "")
            np.testing.assert_array_equal(array, before[own], err_msg=name)
        elif name.startswith("params/student/"):
            assert not np.array_equal(array, first[name]), name
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    (of_teacher,) = {
        line["test_teacher_accuracy"] for line in lines if "test_teacher_accuracy" in line
    }
    pretrained = [json.loads(one) for one in (teacher / "metrics.jsonl").read_text().splitlines()]
    assert of_teacher == pytest.approx(pretrained[-1]["test_accuracy"])


def test_the_loss_is_that_of_the_paper():
    random = np.random.default_rng(0)
    student, teacher = random.normal(size=(2, 6, 5))
    labels = np.arange(6) % 5
    parts = distillation(
        {"logits": student, "teacher": teacher}, labels, temperature=3.0, share=0.7
    )

    def log_softmax(x):
        return x - np.log(np.exp(x).sum(-1, keepdims=True))

    soft = -(np.exp(log_softmax(teacher / 3)) * log_softmax(student / 3)).sum(-1)
    hard = -log_softmax(student)[np.arange(6), labels]
    np.testing.assert_allclose(parts["soft"], 0.7 * 9 * soft, rtol=1e-5)
    np.testing.assert_allclose(parts["hard"], 0.3 * hard, rtol=1e-5)
