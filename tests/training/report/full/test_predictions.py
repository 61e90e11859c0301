"""Files of predictions that two processes write at once."""

import pytest

from training.report import predictions as module


@pytest.mark.parametrize("name", ["predictions.csv", "predictions.parquet"])
def test_two_that_write_predictions_at_once_do_not_mix(tmp_path, digits, monkeypatch, name):
    if name.endswith(".parquet"):
        pytest.importorskip("pyarrow")
    alone, path = tmp_path / f"alone-{name}", tmp_path / name
    few = digits._replace(logits=digits.logits[:50], targets=digits.targets[:50])
    module.write_predictions(alone, digits)
    columns, begun = module._class_columns, []

    def meanwhile(predictions):
        names, block_of = columns(predictions)

        def block(rows):
            if not begun:
                begun.append(True)
                module.write_predictions(path, few)  # as another process does, while this writes
            return block_of(rows)

        return names, block

    monkeypatch.setattr(module, "_class_columns", meanwhile)
    module.write_predictions(path, digits)
    assert begun
    assert path.read_bytes() == alone.read_bytes()
    assert sorted(one.name for one in tmp_path.iterdir()) == sorted([alone.name, name])
