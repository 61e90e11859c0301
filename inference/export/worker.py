"""A separate process for libraries that are slow to import, write to the console, or may crash."""

import os
import signal
import traceback
from multiprocessing import get_context

from utils import UserError


class Worker:
    """Runs functions in another process, one after the other.

        with Worker(Path("convert.log"), import_tensorflow) as worker:
            content = worker.run(to_tflite, lowered, names)

    Args:
        log: file that receives what the process prints.
        first: function to call in the process at once, while this process continues; or None.
    """

    def __init__(self, log, first=None):
        self.log, self.first = log, first
        self._start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._connection.close()  # an idle process ends by itself; TensorFlow takes a second for it
        self._process.join(10 if self._idle and self.first is None else 0)
        self._process.kill()
        self._process.join()

    def run(self, function, *arguments):
        """Calls a function, defined at the top of a module, in the process; returns its result.

        Raises:
            UserError: the function raised an error, or the process died.
        """
        self._idle = False
        try:
            self._connection.send((function, arguments))
            good, result = self._connection.recv()
        except (EOFError, OSError):
            self._process.join()
            death = _death(self._process.exitcode)
            self._start()
            raise UserError(
                f"{function.__name__}: its process {death}; its last output is in {self.log}. "
                "Is there enough memory? If so, this network is too much for that library"
            ) from None
        self._idle = True
        if not good:
            raise UserError(result)
        return result

    def _start(self):
        context = get_context("spawn")  # a fork would inherit JAX's threads
        self._connection, other_end = context.Pipe()
        arguments = other_end, str(self.log), self.first
        self._process = context.Process(target=_serve, args=arguments, daemon=True)
        self._process.start()
        other_end.close()
        self._idle = self.first is None


def _serve(connection, log, first):
    """Runs in the other process: prints into the log, hides accelerators, answers calls."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (1, 2):
        os.dup2(file, stream)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent process handles Ctrl-C
    os.environ |= {
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "CUDA_VISIBLE_DEVICES": "-1",
        "JAX_PLATFORMS": "cpu",
    }
    if first is not None:
        first()
    while True:
        try:
            function, arguments = connection.recv()
        except EOFError:
            return
        try:
            answer = True, function(*arguments)
        except UserError as error:
            answer = False, str(error)
        except Exception as error:  # any error is reported to the parent process
            traceback.print_exc()
            answer = False, f"{function.__name__}: {type(error).__name__}: {error}; see {log}"
        connection.send(answer)


def _death(code):
    if code is not None and code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"died with exit code {code}"
