"""A run resumes from a checkpoint with old names."""

import shutil

import train
from tests.helpers.project import same_arrays
from training.checkpoint.naming import file_name, latest
from training.checkpoint.reading import read
from training.checkpoint.single_file import write


def test_a_run_resumes_from_a_checkpoint_with_old_names_to_the_same_bits(run, config, tmp_path):
    config["training"] |= {"ema": 0.9}
    _, whole = run()
    resumed = shutil.copytree(whole, tmp_path / "resumed")
    for path in resumed.glob("*.params"):
        path.unlink()
    arrays, meta = read(whole / file_name(1))
    old = {name.replace("ema_params/", "average/"): array for name, array in arrays.items()}
    assert old.keys() != arrays.keys()
    write(resumed / file_name(1), old, meta)
    assert train.main(["--resume", str(resumed)]) == 0
    assert same_arrays(read(latest(resumed))[0], read(latest(whole))[0])
    assert (resumed / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
