"""Whole runs on tables: what the training file means is kept with the run."""

import json
import re

import numpy as np
import pytest

import test as evaluation
import train
from tests.helpers.project import same_arrays
from training.checkpoint.naming import find
from training.checkpoint.reading import read


@pytest.fixture
def table_config(tmp_path):
    """A config on two CSV files, the columns of the second in another order."""
    random = np.random.default_rng(0)
    for name, order in (("train", (0, 1, 2)), ("test", (2, 0, 1))):
        species = random.integers(0, 3, 120)
        rows = np.column_stack([
            np.array(["Biscoe", "Dream", "Torgersen"])[random.integers(0, 3, 120)],
            (3000 + 700 * species + 100 * random.normal(size=120)).round(1),
            np.array(["Adelie", "Chinstrap", "Gentoo"])[species],
        ])[:, order]  # fmt: skip
        header = np.array(["island", "mass", "species"])[list(order)]
        lines = [",".join(header), *(",".join(row) for row in rows)]
        (tmp_path / f"{name}.csv").write_text("\n".join(lines) + "\n")

    def loader(name):
        args = {"path": str(tmp_path / f"{name}.csv"), "target": "species"}
        dataset = {"name": "Table", "args": args}
        return {"name": "DataLoader", "args": {"dataset": dataset, "batch_size": 20}}

    return {
        "title": "Table",
        "model": {"name": "mlp", "args": {"feat_dims": [8], "classes": 3}},
        "data_loader": {"train": loader("train"), "test": loader("test")},
        "training": {
            "loss": "cross_entropy", "metrics": ["accuracy"], "epochs": 4,
            "optimizer": {"name": "adamw", "args": {"learning_rate": 0.05}},
            "save_dir": str(tmp_path / "saved"),
        },
    }  # fmt: skip


def test_a_run_keeps_the_meaning_of_its_columns(table_config, tmp_path, write_config, capsys):
    path = write_config(table_config)
    run = train.fit(path)
    assert run.metrics["test_accuracy"] > 0.9
    kept = json.loads((run.folder / "config.json").read_text())
    fitted = kept["data_loader"]["train"]["args"]["dataset"]["args"]["fitted"]
    assert fitted["inputs"]["island"]["values"] == ["Biscoe", "Dream", "Torgersen"]
    assert fitted["target"]["values"] == ["Adelie", "Chinstrap", "Gentoo"]

    # What is added to the training file later does not change what the columns mean.
    file = tmp_path / "train.csv"
    text = file.read_text()
    file.write_text(text + "Dream,99999,Gentoo\n")
    assert evaluation.main(["-w", str(run.folder), "--latest", "--predictions"]) == 0
    accuracy = re.findall(r"accuracy @ ([\d.]+)", capsys.readouterr().out)[-1]
    assert float(accuracy) == run.metrics["test_accuracy"]
    predictions = (run.folder / "predictions.csv").read_text()
    assert "Chinstrap" in predictions

    file.write_text(text + "Corsica,4000,Gentoo\n")
    assert train.main(["--resume", str(run.folder), "training.epochs=5"]) == 1
    assert "row 122, column 'island': 'Corsica': expected one of" in capsys.readouterr().err


def test_a_run_on_a_table_resumes_to_the_bit(table_config, write_config, tmp_path):
    path = write_config(table_config)
    whole = train.fit(path, training__save_dir=str(tmp_path / "whole"))
    parts = train.fit(path, training__epochs=2)
    resumed = train.fit(resume=parts.folder, training__epochs=4)
    assert same_arrays(read(find(whole.folder))[0], read(find(resumed.folder))[0])


def test_what_does_not_fit_stops_the_check_with_its_place(table_config, write_config, capsys):
    args = table_config["data_loader"]["test"]["args"]["dataset"]["args"]
    args["path"] = args["path"].replace("test.csv", "broken.csv")
    with open(args["path"], "w") as file:
        file.write("island,mass,species\nDream,heavy,Gentoo\n")
    assert train.main(["-c", write_config(table_config), "--check"]) == 1
    assert "row 2, column 'mass': 'heavy': not a number" in capsys.readouterr().err
