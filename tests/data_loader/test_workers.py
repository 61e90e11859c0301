"""Reading ahead: threads and processes, errors in them, their end."""

import functools
import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from data_loader.base import BaseDataLoader
from data_loader.dataloader import DataLoader
from tests.helpers.data_sets import Dying, Failing, Numbers
from tests.helpers.project import ROOT
from utils import UserError


def wait_until(true, seconds=10):
    deadline = time.monotonic() + seconds
    while not true() and time.monotonic() < deadline:
        time.sleep(0.02)
    return true()


@pytest.mark.parametrize(
    "arguments",
    [
        {"prefetch": 0},
        {"prefetch": 3},
        {"workers": 2},
        {"workers": 1, "prefetch": 0, "worker_kind": "process"},
    ],
)
def test_an_exception_while_reading_is_raised_at_its_batch_and_leaves_no_thread(arguments):
    before = set(threading.enumerate())
    loader = DataLoader(Failing(20), 4, **arguments)
    batches = loader.batches(1)
    assert next(batches)["targets"].tolist() == [0, -1, -2, -3]
    with pytest.raises(ZeroDivisionError, match="example 7 is odd"):
        next(batches)
    assert list(batches) == []
    assert len(list(loader.batches(1, start=2))) == 3  # the loader is still good
    del batches, loader
    gc.collect()
    assert wait_until(lambda: set(threading.enumerate()) <= before)


def test_an_abandoned_iterator_leaves_no_thread():
    before = set(threading.enumerate())
    loader = DataLoader(Numbers(1000), 2, prefetch=5)
    for _ in loader.batches(1):
        break
    assert set(threading.enumerate()) == before
    batches = loader.batches(1)
    next(batches)
    assert set(threading.enumerate()) > before
    batches.close()
    assert set(threading.enumerate()) == before


def test_reading_stays_no_further_ahead_than_prefetch():
    class Counting(BaseDataLoader):
        started = 0

        def read(self, indices):
            self.started += 1
            return {"inputs": indices, "targets": indices}

    loader = Counting(Numbers(100), 1, prefetch=3)
    batches = loader.batches(1)
    for done in range(1, 5):
        next(batches)
        time.sleep(0.05)
        assert loader.started == done + 3


@pytest.mark.parametrize("kind", ["thread", "process"])
def test_workers_end_with_their_loader(kind):
    before = set(threading.enumerate())
    loader = DataLoader(Numbers(20), 4, workers=2, worker_kind=kind)
    list(loader.batches(1))
    workers = multiprocessing.active_children()
    assert len(workers) == (2 if kind == "process" else 0)
    del loader
    gc.collect()
    assert wait_until(lambda: set(threading.enumerate()) <= before)
    for worker in workers:
        worker.join(5)
        assert worker.exitcode == 0


def test_workers_end_with_a_killed_parent_and_ignore_interrupts(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(
        "import multiprocessing, time\n"
        "from data_loader.dataloader import DataLoader\n"
        "if __name__ == '__main__':\n"
        "    pairs = [(i, i) for i in range(20)]\n"
        "    loader = DataLoader(pairs, 4, workers=2, worker_kind='process')\n"
        "    next(loader.batches(1))\n"
        "    print(*[p.pid for p in multiprocessing.active_children()], flush=True)\n"
        "    time.sleep(1)\n"
        "    list(loader.batches(2))\n"
        "    print('a second epoch', flush=True)\n"
        "    time.sleep(60)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, script],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    with parent:
        try:
            workers = [int(pid) for pid in parent.stdout.readline().split()]
            assert len(workers) == 2
            assert all(wait_until(functools.partial(ignores_interrupts, pid)) for pid in workers)
            for worker in workers:
                os.kill(worker, signal.SIGINT)
            assert parent.stdout.readline() == "a second epoch\n"
            assert all(map(alive, workers))
        finally:
            parent.kill()
    assert wait_until(lambda: not any(map(alive, workers)))


def ignores_interrupts(pid):
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    status = dict(line.split(":", 1) for line in lines)
    return bool(int(status["SigIgn"], 16) & 1 << (signal.SIGINT - 1))


def alive(pid):
    """Whether a process runs; one that ended but was not yet waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_worker_process_that_dies_raises_a_clear_error():
    with pytest.raises(UserError, match=r"DataLoader\(Dying\): a worker process died"):
        list(DataLoader(Dying(8), 4, workers=1, worker_kind="process").batches(1))


def test_a_data_set_that_cannot_be_sent_to_a_process_is_refused_at_once():
    dataset = Numbers(8)
    dataset.transform = lambda x: x
    with pytest.raises(UserError, match="cannot be sent to a worker process"):
        DataLoader(dataset, 4, workers=1, worker_kind="process")
