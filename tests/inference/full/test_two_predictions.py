"""Files of predictions that two processes write at once."""

from inference.predict import write_csv


def test_two_that_write_predictions_at_once_do_not_mix(tmp_path):
    path = tmp_path / "predictions.csv"

    def columns(result):
        return {"prediction": result}

    def results():
        yield "first.png", None, "a" * 10_000
        write_csv(path, [("other.png", None, "b")], columns)  # as another process does meanwhile
        assert path.read_text().splitlines() == ["path,prediction", "other.png,b"]
        yield "second.png", None, "c"

    write_csv(path, results(), columns)
    assert path.read_text().splitlines() == [
        "path,prediction", f"first.png,{'a' * 10_000}", "second.png,c",
    ]  # fmt: skip
    assert [one.name for one in tmp_path.iterdir()] == ["predictions.csv"]
