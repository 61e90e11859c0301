"""A process of its own for what is slow to import, talks to the console, or may crash."""

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
        log: file that takes what the process prints.
        first: function to call there at once, while this process goes on; None for nothing.
    """

    def __init__(self, log, first=None):
        self.log, self.first = log, first
        self._start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._connection.close()  # an idle process ends by itself
        self._process.join(10 if self._idle else 0)
        self._process.kill()
        self._process.join()

    def run(self, function, *arguments):
        """Returns what a function at the top of a module returns, called in the process.

        Raises:
            UserError: it raised one; it raised anything else; or the process died.
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
                f"{function.__name__}: its process {death}; what it said last is in {self.log}. "
                "Is there enough memory? If so, this network is too much for that library"
            ) from None
        self._idle = True
        if not good:
            raise UserError(result)
        return result

    def _start(self):
        context = get_context("spawn")  # a fork would inherit JAX's threads
        self._connection, theirs = context.Pipe()
        arguments = theirs, str(self.log), self.first
        self._process = context.Process(target=_serve, args=arguments, daemon=True)
        self._process.start()
        theirs.close()
        self._idle = self.first is None


def _serve(connection, log, first):
    """The other process: everything that is printed goes into the log, accelerators are hidden."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for stream in (1, 2):
        os.dup2(file, stream)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the other process's to answer
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
        except Exception as error:  # whatever it is, the other process has to hear of it
            traceback.print_exc()
            answer = False, f"{function.__name__}: {type(error).__name__}: {error}; see {log}"
        connection.send(answer)


def _death(code):
    if code is not None and code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"died with exit code {code}"
