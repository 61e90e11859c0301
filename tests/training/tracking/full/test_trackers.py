"""Several trackers at once, one's own among them, and the files that every run writes."""

from tests.helpers.tracking import recorded, scalar_events, wandb_history

RECORDER = "tests.helpers.tracking:Recorder"


def test_a_resumed_run_repeats_every_trackers_metrics_exactly(run, config, mnist, monkeypatch):
    for folder in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(folder, str(mnist / "wandb"))
    config["wandb"] = {"mode": "offline"}
    config["training"]["trackers"] = [RECORDER, "tensorboard", "wandb"]
    dataset = {
        "name": "tests.helpers.networks:Signalling",
        "args": {"root": str(mnist), "split": "train"},
    }
    config["data_loader"]["train"]["args"]["dataset"] = dataset
    _, whole = run()
    monkeypatch.setenv("SIGNAL_AT", "SIGTERM@12")  # in the second epoch
    code, folder = run()
    assert code == 143
    monkeypatch.delenv("SIGNAL_AT")
    with open(folder / "metrics.jsonl", "a") as file:
        file.write('{"step": 99}\n')  # by a run that was killed later
    assert run("--resume", str(folder)) == (0, folder)

    assert (folder / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    assert scalar_events(folder) == scalar_events(whole)

    def scalars(calls):
        return [call for call in calls if call[0] == "scalars"]

    def values(folder):
        (synced,) = (folder / "wandb").glob("offline-run-*")  # what `wandb sync` finds
        rows = wandb_history(synced)
        return [{n: v for n, v in row.items() if n == "_step" or n[0] != "_"} for row in rows]

    assert scalars(recorded(folder)) == scalars(recorded(whole))
    assert sum(call[0] == "start" for call in recorded(folder)) == 2
    assert values(folder) == values(whole)
