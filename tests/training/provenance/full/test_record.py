"""Two runs, compared in a table."""

import json

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
    assert "training.save_period" not in rows
    ends = [json.loads((run / "metrics.jsonl").read_text().splitlines()[-1]) for run in
            (first, again, other)]  # fmt: skip
    assert rows["test_loss"] == [str(end["test_loss"]) for end in ends]
    assert f"{again.name}: its metrics are the same to the bit" in table
    assert f"{again.name}: its latest checkpoint has the same bits" in table
    assert f"{other.name}: its metrics differ from step 1 on" in table
    assert compare.main([str(first)]) == 1
    assert compare.main([str(first), str(first / "model")]) == 1
