"""Whole runs with samplers and epochs of another length."""

import json

from tests.helpers.project import same_arrays
from training.checkpoint.naming import find
from training.checkpoint.reading import read


def test_a_run_with_a_sampler_resumes_to_the_bit(run, config, tmp_path):
    args = config["data_loader"]["train"]["args"]
    args |= {"sampler": "balanced", "examples_per_epoch": 500, "drop_last": True}
    config["training"]["optimizer"]["args"]["learning_rate"] = 0.01  # no schedule to stretch
    code, whole = run("training.epochs=2")
    assert code == 0
    config["training"]["save_dir"] = str(tmp_path / "parts")
    _, parts = run("training.epochs=1")
    assert run("--resume", str(parts), "training.epochs=2")[0] == 0
    assert same_arrays(read(find(whole))[0], read(find(parts))[0])
    lines = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == 2 * (500 // 128)
