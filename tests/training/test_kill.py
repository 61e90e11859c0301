"""A run is killed and resumed; many kills are in provenance/full and in benchmarks/faults.py."""

import signal
import subprocess
import sys
import time

from tests.helpers.project import ROOT, same_arrays
from training.checkpoint.naming import latest
from training.checkpoint.reading import read

EPOCHS = 15  # that the kill is in one of the first ones


def test_a_killed_run_is_resumed_and_ends_with_the_same_bits(run, config, write_config, tmp_path):
    config["training"]["epochs"] = EPOCHS
    _, whole = run()
    config["training"]["save_dir"] = str(tmp_path / "killed")
    command = [sys.executable, "train.py", "-c", write_config(config)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as process:
        while not list((tmp_path / "killed").glob("*/*/checkpoint-epoch_*.params")):
            assert process.poll() is None
            time.sleep(0.005)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    (folder,) = (tmp_path / "killed").glob("*/*")
    assert latest(folder).name != f"checkpoint-epoch_{EPOCHS}.params"
    assert run("--resume", str(folder)) == (0, folder)
    assert (folder / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    assert same_arrays(read(latest(folder))[0], read(latest(whole))[0])
