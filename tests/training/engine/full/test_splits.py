"""The splits of the data: each is tried, and they are compared, before anything is trained."""

import json


def test_a_run_that_began_with_a_split_by_chance_keeps_it_and_a_new_one_has_proportions(
    run, points
):
    code, folder = run("training.epochs=1", "data_loader.stratify=false")
    assert code == 0
    config = json.loads((folder / "config.json").read_text())
    assert config["data_loader"].pop("stratify") is False
    (folder / "config.json").write_text(json.dumps(config))  # as an older version wrote it
    assert run("--resume", str(folder), "training.epochs=2")[0] == 0
    code, whole = run("training.epochs=2", "data_loader.stratify=false")
    assert (folder / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    assert json.loads((folder / "config.json").read_text())["data_loader"]["stratify"] is False
    code, new = run("training.epochs=2")
    assert json.loads((new / "config.json").read_text())["data_loader"]["stratify"] is True
    assert (new / "metrics.jsonl").read_bytes() != (whole / "metrics.jsonl").read_bytes()
