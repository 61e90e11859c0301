"""Ctrl-C and SIGTERM while training: finish the step, save, exit."""

import os
import signal


class StopSignal:
    """Within it the first signal is only noted; a second one ends the process at once.

    Of several processes one signal to any stops all, at the same step: JAX's runtime, which then
    listens for SIGTERM itself, has them agree on it.

    Args:
        several: whether this is one of several processes.

    Attributes:
        signal: number of the signal that came, or None. The customary exit code is 128 + signal.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self, several=False):
        self.signal, self._several = None, several
        self._came, self._asked = signal.SIGTERM, 0

    def __enter__(self):
        numbers = self.SIGNALS[:1] if self._several else self.SIGNALS
        self._before = {number: signal.signal(number, self._note) for number in numbers}
        return self

    def due(self):
        """Whether to stop; several processes are to ask equally often, and get the same answer."""
        if self._several and self.signal is None:
            from jax.experimental.multihost_utils import reached_preemption_sync_point

            self._asked += 1
            if reached_preemption_sync_point(self._asked):
                self.signal = self._came
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
        return self.signal is not None

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number, _frame):
        if self._several:
            self._came = number
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)  # for JAX's runtime
            return
        self.signal = number
        for one in self.SIGNALS:
            signal.signal(one, signal.SIG_DFL)
