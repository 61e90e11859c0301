"""Runs with and without a second compilation, and one without --profile."""

import re


def test_a_run_without_profile_leaves_no_trace(run, capsys):
    code, folder = run()
    assert code == 0
    assert "waiting for data" not in capsys.readouterr().out
    assert not (folder / "profile").exists()


def test_a_run_that_compiles_once_does_not_warn(run, config, capsys):
    config["data_loader"]["train"]["args"]["validation_split"] = 0.1  # other batches to evaluate
    config["data_loader"]["test"]["args"]["batch_size"] = 100
    assert run("training.epochs=3")[0] == 0
    assert "WARNING" not in capsys.readouterr().out


def test_a_second_compilation_after_the_first_epoch_names_what_changed(run, config, capsys, mnist):
    dataset = {
        "name": "tests.helpers.networks:Changing",
        "args": {"root": str(mnist), "split": "train"},
    }
    config["data_loader"]["train"]["args"]["dataset"] = dataset
    code, _ = run("training.epochs=3")
    assert code == 0
    warnings = re.findall(r"WARNING\].* - (.*)", capsys.readouterr().out)
    assert warnings == [
        "update was compiled once more: "
        "batch['inputs'] is float32[128,1,28,28], it was uint8[128,1,28,28]"
    ]
