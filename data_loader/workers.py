"""Reading in the background: a thread that prefetches batches, workers that read samples."""

import functools
import multiprocessing
import os
import pickle
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, ThreadPoolExecutor
from itertools import islice
from typing import Any

import numpy as np

from utils import UserError

CHUNKS_PER_WORKER = 4  # small chunks, so that no worker waits long for the slowest

_dataset = None  # in a worker process: its copy of the data set


def read_ahead(
    read: Callable[[Any], Any], numbers: Iterable[Any], count: int, threads: int = 1
) -> Generator[Any, None, None]:
    """Yields read(number) in order, while threads read up to `count` ahead.

    They end with the loop over this generator.
    """
    numbers = iter(numbers)
    pool = ThreadPoolExecutor(threads, thread_name_prefix="prefetch")
    try:
        waiting = deque(pool.submit(read, number) for number in islice(numbers, count))
        while waiting:
            batch = waiting.popleft().result()
            waiting.extend(pool.submit(read, number) for number in islice(numbers, 1))
            yield batch
    finally:  # also if the loop around the generator is left early
        pool.shutdown(cancel_futures=True)


class Workers:
    """Threads or processes that read the samples of a batch in parallel.

    Processes start with the first batch and end with this object or with their parent.

    Args:
        count: number of workers.
        kind: "thread" or "process".
        dataset: the data set; each process has its own copy.
        name: of the loader, for messages.

    Raises:
        UserError: the data set cannot be sent to a process.
    """

    def __init__(self, count: int, kind: str, dataset: Any, name: str) -> None:
        self._count, self._name = count, name
        if kind == "thread":
            self._pool = ThreadPoolExecutor(count, thread_name_prefix="reader")
            self._read_chunk = functools.partial(read_samples, dataset)
        else:
            self._pool = _start_processes(count, dataset, name)
            self._read_chunk = _read_samples_here

    def read(self, indices: np.ndarray) -> list:
        """Returns the samples at `indices`, (batch,) int64, in their order.

        Raises:
            UserError: a worker process died.
        """
        chunks = np.array_split(indices, min(len(indices), CHUNKS_PER_WORKER * self._count))
        try:
            return [
                sample for chunk in self._pool.map(self._read_chunk, chunks) for sample in chunk
            ]
        except BrokenExecutor as error:
            raise UserError(
                f"{self._name}: a worker process died; expected it to read samples. Either memory "
                "ran out (use fewer workers, or threads), or the data set's class cannot be "
                "imported by another process (keep it in a module, not in a notebook)."
            ) from error


def read_samples(dataset: Any, indices: np.ndarray) -> list:
    """Returns the samples at `indices`, read one by one."""
    return [dataset[index] for index in indices.tolist()]


def _start_processes(count, dataset, name):
    try:
        pickle.dumps(dataset)
    except Exception as error:  # pickling may raise any exception
        raise UserError(
            f"{name}: the data set cannot be sent to a worker process ({error}); expected one that "
            "can be pickled. Leave out open files and lambdas, or set worker_kind to 'thread'."
        ) from error
    spawn = multiprocessing.get_context("spawn")  # JAX has threads, which do not survive a fork
    return ProcessPoolExecutor(count, spawn, initializer=_start_worker, initargs=(dataset,))


def _start_worker(dataset):
    """Stores the data set in a worker process, and makes the process end with its parent."""
    global _dataset
    _dataset = dataset
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent():
    if parent := multiprocessing.parent_process():
        parent.join()
    os._exit(1)


def _read_samples_here(indices):
    return read_samples(_dataset, indices)
