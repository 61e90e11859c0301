"""Measures the loop's overhead: an epoch of train.py over the bare updates, in one process.

    python benchmarks/loop.py [--rounds 7] [-c config.json] [key.path=value ...]

The loop reads the data, logs, tracks and sums metrics. The bare updates are calls of the same
compiled function on batches that are already on the device. Epochs of the two are timed in turn;
the result is the median ratio of such pairs. Wanted: at most 1.03. Beside it stands the epoch as
one `lax.scan` over all batches, the least that the updates can take where calls cost time; only
with `training.steps_per_call=1`.
"""

import argparse
import logging
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax

import utils
from training.config import read_config
from training.distributed.preemption import StopSignal
from training.engine.build import build
from training.engine.compilation import FAST, keep_freed_memory
from training.engine.initialize import first_batch
from training.engine.loop import train_epoch
from training.engine.progress import Progress
from training.engine.run import Run
from training.engine.scan import scan_steps, stack
from training.tracking.metric_logger import MetricLogger
from training.tracking.trackers import Trackers


def main():
    """Prints the time of both in each round, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-c", "--config", default="config.json")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("overrides", nargs="*", metavar="key.path=value")
    options = parser.parse_intermixed_args()
    config = read_config(options.config, options.overrides)
    keep_freed_memory()
    experiment = build(config, options.config)
    state = experiment.init(first_batch(experiment))
    calls = [call for call, _ in experiment.batches(epoch=1)]
    on_device = jax.device_put(calls)
    with tempfile.TemporaryDirectory() as folder, StopSignal() as stop:
        utils.set_up_logging(folder)
        logging.getLogger("main").handlers[0].setStream(open(Path(folder) / "console", "w"))  # noqa: SIM115
        state, _ = bare_epoch(experiment.update, state, on_device)
        scan = whole_epoch(experiment, calls)
        if scan:
            state, _ = scan(state)
        ratios, over_scan = [], []
        for number in range(options.rounds):
            state, loop = loop_epoch(config, experiment, state, Path(folder), stop, Progress())
            state, bare = bare_epoch(experiment.update, state, on_device)
            ratios.append(loop / bare)
            print(f"round {number + 1}: loop {loop:.3f} s, bare {bare:.3f} s, {loop / bare:.3f}")
            if scan:
                state, seconds = scan(state)
                over_scan.append(loop / seconds)
    for name, found in (("bare updates", ratios), ("one scan of the epoch", over_scan)):
        if found:
            spread = f"{min(found):.3f} to {max(found):.3f}"
            print(f"loop over {name}: median {statistics.median(found):.3f} ({spread})")


def loop_epoch(config, experiment, state, folder, stop, progress):
    """Returns the state and the seconds of an epoch, or of its rest, as train.py runs it."""
    with Trackers(config, folder, {}) as trackers:
        logger = MetricLogger(progress, trackers, experiment, config.training.log_every)
        logger.start_epoch()
        began = time.perf_counter()
        run = Run(config, folder, experiment, state, progress)
        train_epoch(run, logger, stop)
        return jax.block_until_ready(run.state), time.perf_counter() - began


def bare_epoch(update, state, batches):
    """Returns the state and the seconds of calling the update on every batch."""
    began = time.perf_counter()
    for batch in batches:
        state, _ = update(state, batch)
    return jax.block_until_ready(state), time.perf_counter() - began


def whole_epoch(experiment, batches):
    """Returns `state -> (state, seconds)` of an epoch in one call; None if calls have several."""
    if experiment.steps_per_call > 1:
        return None
    update = experiment.update.__wrapped__  # a jitted function in another has no options of its own
    options = FAST.get(jax.default_backend())
    scan = jax.jit(scan_steps(update, len(batches)), donate_argnums=0, compiler_options=options)
    call = jax.device_put(stack(batches, len(batches)))

    def epoch(state):
        began = time.perf_counter()
        state, _ = scan(state, call)
        return jax.block_until_ready(state), time.perf_counter() - began

    return epoch


if __name__ == "__main__":
    main()
