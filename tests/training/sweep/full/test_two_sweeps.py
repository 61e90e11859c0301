"""The same sweep, started twice at once: what one of them has begun is left to it."""

from data_loader.locked_files import open_locked
from training.sweep import execute as module
from training.sweep.execute import claim, execute
from training.sweep.plan import ERRORS, create_folders, plan


def test_a_folder_that_another_sweep_is_making_is_left_to_it(config, write_config):
    (run,) = runs = plan(write_config(config), [], {"seed": [0]}, None)
    run.folder.mkdir(parents=True)
    with open_locked(run.folder / ERRORS):  # the other is about to write the config
        create_folders(runs)
        assert [one.name for one in run.folder.iterdir()] == [ERRORS]
    create_folders(runs)
    assert sorted(one.name for one in run.folder.iterdir()) == ["code.json", "config.json"]
    content = (run.folder / "config.json").read_bytes()
    create_folders(runs)
    assert (run.folder / "config.json").read_bytes() == content


def test_a_run_is_claimed_by_one_sweep_also_when_the_file_of_its_claim_was_removed(
    config, write_config
):
    (run,) = runs = plan(write_config(config), [], {"seed": [0]}, None)
    create_folders(runs)
    first = claim(run)
    late = open(run.folder / ERRORS, "a+b")  # noqa: SIM115  # by another, before it is removed
    assert claim(run) is None
    (run.folder / ERRORS).unlink()  # as at the run's end, and only then:
    first.close()
    with claim(run) as second, late:
        assert second is not None
        assert claim(run) is None


def test_a_run_that_the_other_sweep_has_just_finished_is_left_as_it_is(
    config, write_config, monkeypatch, capsys
):
    runs = plan(write_config(config), [], {"seed": [0]}, None)
    create_folders(runs)
    looks = iter([False, True])  # finished between the two looks
    monkeypatch.setattr(module, "finished", lambda _: next(looks))
    assert execute(runs, 1) == (0, None)
    assert "another process trained it" in capsys.readouterr().out
    assert not (runs[0].folder / ERRORS).exists()
