"""Two runs, compared in a table."""

import json
import shutil
import subprocess
import sys

from tests.helpers.project import ROOT
from training.common.records import read_record
from training.report import compare


def test_two_runs_are_compared_in_a_table(run, config, capsys):
    _, first = run()
    _, again = run()
    _, other = run("seed=1", "training.epochs=1")
    assert compare.main([str(first), str(again), str(other)]) in (0, None)
    table = capsys.readouterr().out
    table = table[table.rindex(first.name + "  ") :] if first.name in table else table
    rows = {line.split()[0]: line.split()[1:] for line in table.splitlines() if line.strip()}
    assert rows["seed"] == ["0", "0", "1"]
    assert rows["training.epochs"] == ["2", "2", "1"]
    assert "training.save_every" not in rows
    ends = [json.loads((run / "metrics.jsonl").read_text().splitlines()[-1]) for run in
            (first, again, other)]  # fmt: skip
    assert rows["test_loss"] == [str(end["test_loss"]) for end in ends]
    assert f"{again.name}: its metrics are the same to the bit" in table
    assert f"{again.name}: its latest checkpoint has the same bits" in table
    assert f"{other.name}: its metrics differ from step 1 on" in table
    assert compare.main([str(first)]) == 1
    assert compare.main([str(first), str(first / "model")]) == 1


def test_everything_that_changed_since_is_logged_on_resuming(run, config, mnist, tmp_path, capsys):
    config["data_loader"]["train"]["args"]["dataset"]["args"]["root"] = str(tmp_path / "digits")
    shutil.copytree(mnist, tmp_path / "digits")
    _, folder = run("training.epochs=1")
    record = read_record(folder / "environment.json")
    assert record["data"].keys() == {"train", "test"}
    assert {"train.py", "utils.py", "training/loss.py", "model/model.py"} <= record["code"].keys()
    capsys.readouterr()
    run("--resume", str(folder))
    assert "Changed since" not in capsys.readouterr().out

    labels = tmp_path / "digits" / "train-labels-idx1-ubyte"
    content = bytearray(labels.read_bytes())
    content[20] = (content[20] + 1) % 10
    labels.write_bytes(content)
    with open(folder / "model" / "model.py", "a") as file:
        file.write("\n")
    record["git_revision"], record["packages"]["numpy"] = "an older one", "0.1"
    record["device"], record["code"]["training/loss.py"] = "8 × TPU", "00000000"
    record["code"]["training/engine/step.py"] = "ffffffff"
    (folder / "environment.json").write_text(json.dumps(record))
    # in a process of its own, which imports the code again
    done = subprocess.run(
        [sys.executable, "train.py", "--resume", folder, "--trust", "training.epochs=2"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    warnings = [line.partition("last started: ")[2] for line in done.stdout.splitlines()]
    for start in (
        "config.training.epochs: was 1, is 2", "data.train: was ", "code.model/model.py: was ",
        "code.training/loss.py: was 00000000", "code.training/engine/step.py: was ffffffff",
        "git_revision: was an older one",
        "packages.numpy: was 0.1", "device: was 8 × TPU",
    ):  # fmt: skip
        assert any(line.startswith(start) for line in warnings), (start, warnings)
    assert not any(line.startswith("data.test") for line in warnings)
    assert json.loads((folder / "1-environment.json").read_text()) == record
