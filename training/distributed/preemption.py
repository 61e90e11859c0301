"""Ctrl-C and SIGTERM while training: finish the step, save, exit."""

import os
import signal


class StopSignal:
    """Within its block the first signal is only recorded; a second one ends the process at once.

    If one of several processes gets a signal, all of them stop at the same step: JAX's runtime,
    which then handles SIGTERM itself, makes them agree on it. `signal` is the number of the
    received signal, or None. The customary exit code is 128 + signal.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self, distributed=False):
        self.signal, self._distributed = None, distributed
        self._received, self._step = signal.SIGTERM, 0

    def __enter__(self):
        numbers = self.SIGNALS[:1] if self._distributed else self.SIGNALS
        self._previous = {number: signal.signal(number, self._record) for number in numbers}
        return self

    def due(self):
        """Whether to stop; all processes call it equally often, and get the same answer."""
        if self._distributed and self.signal is None:
            from jax.experimental.multihost_utils import reached_preemption_sync_point

            self._step += 1
            if reached_preemption_sync_point(self._step):
                self.signal = self._received
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
        return self.signal is not None

    def __exit__(self, *_):
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _record(self, number, _frame):
        if self._distributed:
            self._received = number
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)  # for JAX's runtime
            return
        self.signal = number
        for each in self.SIGNALS:
            signal.signal(each, signal.SIG_DFL)
