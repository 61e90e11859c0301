"""Measures how long a save blocks the loop, and the training speed while it is written."""

import statistics
import time

from benchmarks.faults_common import ROOT

WANTED = {"small": 2, "large": 10}  # ms that a save may block the loop
SPEED_WANTED = 0.9  # of the speed without
SIZES = {
    "small": ([], 30),  # the sample as it is: 14 thousand parameters
    "large": (["model.name=mlp", "model.args.feat_dims=[5500, 5500]",
               "data_loader.train.args.batch_size=64"], 5),  # 415 MB with Adam's state
}  # fmt: skip


def cost(folder, seed=0):
    """Saves states of two sizes repeatedly, between and during updates.

    Returns:
        {name of a measurement: value}
    """
    measured = {}
    for size, (overrides, rounds) in SIZES.items():
        blocked, behind, ratios = _measure(folder / size, overrides, rounds)
        median = statistics.median(blocked)
        met = "met" if median <= WANTED[size] else "NOT met"
        measured[f"{size}: ms that a save blocks the loop"] = (
            f"median {median:.2f}, most {max(blocked):.2f} (wanted: {WANTED[size]}, {met})"
        )
        measured[f"{size}: ms until it is on disk, during updates"] = (
            f"median {statistics.median(behind):.0f}"
        )
        if ratios:
            speed = statistics.median(ratios)
            met = "met" if speed >= SPEED_WANTED else "NOT met"
            measured[f"{size}: speed while one is written, over without"] = (
                f"median {speed:.3f} ({min(ratios):.3f} to {max(ratios):.3f}; "
                f"wanted: {SPEED_WANTED}, {met})"
            )
    return measured


def _measure(folder, overrides, rounds):
    """Returns ms blocked, ms until on disk, and ratios of the speeds, one of each per round."""
    import jax

    from training.checkpoint.naming import file_name
    from training.checkpoint.saver import Saver
    from training.config import read_config
    from training.engine.build import build
    from training.engine.initialize import first_batch

    overrides = [*overrides, f'data_loader.train.args.dataset.args.root="{ROOT / "data"}"']
    experiment = build(read_config(ROOT / "config.json", overrides))
    batch = jax.device_put(first_batch(experiment))
    state = jax.block_until_ready(experiment.update(experiment.init(batch), batch)[0])
    blocked, behind, ratios = [], [], []

    def step(state):
        began = time.perf_counter()
        state = jax.block_until_ready(experiment.update(state, batch)[0])
        return state, time.perf_counter() - began

    with Saver(folder, keep=2) as saver:
        for number in range(rounds):
            alone, during = [], []
            for _ in range(5):
                state, seconds = step(state)
                alone.append(seconds)
            began = time.perf_counter()
            saver.save(state, {"epochs": number}, file_name(number))
            blocked.append(1000 * (time.perf_counter() - began))
            while not saver._pending.done():
                state, seconds = step(state)
                during.append(seconds)
            saver.wait()
            behind.append(1000 * (time.perf_counter() - began))
            if len(during) > 2:
                ratios.append(statistics.mean(alone) / statistics.mean(during))
    return blocked, behind, ratios
