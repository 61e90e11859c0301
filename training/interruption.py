"""Ctrl-C and SIGTERM while training: finish the step, save, exit."""

import signal


class Interruption:
    """Within it the first signal is only noted; a second one ends the process at once.

    Attributes:
        signal: number of the signal that came, or None. The customary exit code is 128 + signal.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __enter__(self):
        self.signal = None
        self._before = {number: signal.signal(number, self._note) for number in self.SIGNALS}
        return self

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number, _frame):
        self.signal = number
        for one in self.SIGNALS:
            signal.signal(one, signal.SIG_DFL)
