"""The console: colours on a terminal that may have them, and plain text everywhere else."""

import io
import logging
import os
import pty

import pytest

from utils import ConsoleFormatter, styled


@pytest.fixture
def terminal(monkeypatch):
    """A text stream that is a terminal, whose colours no variable turns off."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    ours, theirs = pty.openpty()
    with open(theirs, "w") as stream:
        yield stream
    os.close(ours)


def line(level, message):
    record = logging.LogRecord("main", level, "file", 1, message, None, None)
    return ConsoleFormatter("[%(levelname)s] %(message)s").format(record)


def test_a_terminal_gets_colours(terminal, monkeypatch):
    monkeypatch.setattr("sys.stdout", terminal)
    assert line(logging.WARNING, "slow") == "\033[2m[WARNING] \033[0m\033[33mslow\033[0m"
    assert line(logging.ERROR, "gone") == "\033[2m[ERROR] \033[0m\033[31mgone\033[0m"
    assert line(logging.INFO, "as ever") == "\033[2m[INFO] \033[0mas ever"


def test_a_file_or_a_pipe_gets_none(monkeypatch):
    monkeypatch.setattr("sys.stdout", io.StringIO())
    assert line(logging.WARNING, "slow") == "[WARNING] slow"


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_a_terminal_that_wants_none_gets_none(terminal, name, value, monkeypatch):
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setenv(name, value)
    assert line(logging.ERROR, "gone") == "[ERROR] gone"
    assert styled("error:", "red", terminal) == "error:"
