"""Functions that tests call in another process, which imports nothing else with them."""

import os
import signal


def no_import():
    """Imports nothing."""


def crash(*_):
    """Ends the process as a bug in a library does."""
    os.kill(os.getpid(), signal.SIGSEGV)
