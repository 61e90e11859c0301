"""A run on folders and files of any name, from the config to the predictions."""

import json
import os

import numpy as np
from PIL import Image

import test as evaluation
import train

NAMES = [b"\xff", b"new\nline", b"\x1b[31m", b"=1+1", b"<b>&", "שלום".encode(), "🐝".encode()]


def test_classes_of_any_name_are_trained_reported_and_written(tmp_path):
    chance = np.random.default_rng(0)
    root = os.fsencode(tmp_path) + b"/\xfe\n"
    for name in NAMES:
        os.makedirs(os.path.join(root, name))
        for number in range(4):
            with open(os.path.join(root, name, b"\xff%d" % number), "wb") as file:
                Image.fromarray(chance.integers(0, 256, (8, 8), np.uint8)).save(file, "PNG")

    def loader(share):
        args = {"root": os.fsdecode(root), "size": [8, 8], "share": share}
        dataset = {"name": "ImageFolder", "args": args}
        return {"name": "DataLoader", "args": {"dataset": dataset, "batch_size": 4}}

    config = {
        "title": "Names",
        "model": {"name": "mlp", "args": {"feat_dims": [4], "classes": len(NAMES)}},
        "data_loader": {"train": loader([0, 0.5]), "test": loader([0.5, 1])},
        "training": {
            "loss": "cross_entropy",
            "metrics": ["accuracy"],
            "optimizer": {"name": "adamw", "args": {"learning_rate": 0.01}},
            "epochs": 1,
            "save_dir": os.fsdecode(os.fsencode(tmp_path) + b"/\xfd"),
        },
    }
    (tmp_path / "names.json").write_text(json.dumps(config))
    assert train.main(["-c", str(tmp_path / "names.json")]) == 0
    (run,) = (tmp_path / "\udcfd" / "Names").iterdir()
    assert evaluation.main(["-w", str(run), "--predictions"]) == 0
    report, table = (
        (run / name).read_text(encoding="utf-8") for name in ("report.html", "predictions.csv")
    )
    for shown in ("\\xff", "new\\nline", "\\x1b[31m", "=1+1", "&lt;b&gt;&amp;", "שלום", "🐝"):
        assert shown in report
    assert table.splitlines()[0].startswith("index,target,prediction,probability,p_\\x1b[31m,")
    assert "\x1b" not in (run / "train.log").read_text(encoding="utf-8")
