"""Minutes of wall time, on which several processes agree: the first one decides."""

import json
import math
import time

from training.distributed.processes import broadcast


class Clock:
    """Says which of several periods are over, {name: minutes}; all processes get the same answer.

    It is looked at before step `next`, and not earlier: how often follows from how long steps take,
    so that a step costs no look and a look, which on several hosts waits for all, is rare.
    """

    def __init__(self, minutes, step):
        now = time.monotonic()
        self._seconds = {name: 60 * number for name, number in minutes.items()}
        self._ends = {name: now + seconds for name, seconds in self._seconds.items()}
        self._last, self.next = (step, now), step + 1 if minutes else math.inf

    def due(self, step):
        """Returns the names of the periods that are over; each of them begins again."""
        if step < self.next:
            return set()
        over, self.next = json.loads(broadcast(json.dumps(self._look(step))))
        return set(over)

    def _look(self, step):
        """Returns the names of the periods that are over, and the step of the next look.

        That is halfway to the next end, and at most twice as far as the last look was: what the
        first steps take says little.
        """
        now, (before, then) = time.monotonic(), self._last
        over = [name for name, end in self._ends.items() if now >= end]
        self._ends |= {name: now + self._seconds[name] for name in over}
        left, self._last = min(self._ends.values()) - now, (step, now)
        done, took = step - before, max(now - then, 1e-9)
        return over, step + max(1, min(int(left / 2 / took * done), 2 * done))
