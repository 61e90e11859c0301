"""How often something is done: "1 epoch", "500 steps" or "10 minutes"."""

import re
from typing import NamedTuple

FORM = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)\s*(epoch|step|minute)s?", re.IGNORECASE)
EXPECTED = "expected a number and a unit, '1 epoch', '500 steps' or '10 minutes'"


class Every(NamedTuple):
    """So many epochs, steps (updates) or minutes of wall time."""

    count: int | float  # whole, unless of minutes
    unit: str  # "epoch", "step" or "minute"

    def __str__(self):
        return f"{self.count:g} {self.unit}{'s' * (self.count != 1)}"

    def next_step(self, steps):
        """Returns the first step after `steps` at which it is due, if it counts steps, else inf."""
        return steps - steps % self.count + self.count if self.unit == "step" else float("inf")


def parse_every(value, alone=None):
    """Returns the Every of a config's value.

    Args:
        value: a text; or a number, or its text, where `alone` is given.
        alone: the unit of a number without one; None: there has to be one.

    Raises:
        ValueError: it says no such thing; the message says what was expected.
    """
    text = str(value).strip()
    if alone and re.fullmatch(r"[0-9]+(\.0*)?", text):
        text = f"{text} {alone}"
    found = None if isinstance(value, bool) else FORM.fullmatch(text)
    if found is None:
        raise ValueError(f"{EXPECTED}, got {value!r}")
    count, unit = float(found[1]), found[2].lower()
    if count == 0:
        raise ValueError(f"{EXPECTED}, at least 1 of them, got {value!r}")
    if unit == "minute":
        return Every(count, unit)
    if not count.is_integer():
        fix = "; a part of an epoch is a number of steps" if unit == "epoch" else ""
        raise ValueError(f"expected a whole number of {unit}s{fix}, got {value!r}")
    return Every(int(count), unit)
