"""One process with TensorFlow for the exports of many tests, as importing it takes seconds."""

import os

from inference.export.worker import Worker

STARTED = []


class KeptWorker(Worker):
    """A Worker whose process goes on when an export has ended."""

    def __exit__(self, *_):
        pass


def kept_worker(log, first):
    """Returns the Worker that has been started, or starts it; it prints into the log."""
    if not STARTED:
        STARTED.append(KeptWorker(log, first))
        return STARTED[0]
    STARTED[0].log = log
    STARTED[0].run(print_into, str(log))
    return STARTED[0]


def print_into(log):
    """Has the process print into another log."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (1, 2):
        os.dup2(file, stream)
    os.close(file)
