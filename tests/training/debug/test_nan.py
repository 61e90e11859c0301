"""A loss or gradient that is not finite: its layer is named, and its step is saved."""


def test_a_value_that_is_not_finite_stops_the_run_and_names_its_layer(run, config, capsys):
    config["model"] = {"name": "tests.helpers.networks:logarithm"}
    code, folder = run()
    error = capsys.readouterr().err
    assert code == 1
    assert "epoch 1, batch 0 (update 1): " in error
    assert "that of layer logarithm" in error
    assert (folder / "not-finite-step_1.params").exists()
    assert "python -m training.debug.nan " in error
