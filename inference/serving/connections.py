"""The open connections of the demo's server: those that only keep others waiting are dropped."""

import contextlib
import io
import math
import socket
import time
from threading import Lock

MOST = 256  # connections
HEADERS = 2**16  # bytes of a request before its body
IDLE = 60  # seconds between two requests
LATE = 10  # seconds to send a request, or to take its answer
UPLOAD = 3  # seconds to send a large body, when it is its turn


class Connection(io.RawIOBase):
    """What one connection sends, and since when it is waited for.

    Args:
        request: its socket.
    """

    def __init__(self, request):
        self.socket = request
        self.await_request()

    def await_request(self):
        """Waits for the next request."""
        self.received, self.allowed = 0, HEADERS
        self.wait(IDLE)

    def wait(self, patience=math.inf):
        """Begins to wait for it, at most `patience` seconds; by default it is not waited for."""
        self.since, self.patience = time.monotonic(), patience

    @property
    def late(self):
        """Whether it is waited for too long."""
        return time.monotonic() - self.since > self.patience

    def readable(self):
        """Returns True: a file to read from."""
        return True

    def readinto(self, buffer):
        """Reads what has come; ends a connection that sends more than it may."""
        count = self.socket.recv_into(buffer)
        if self.received == 0:
            self.wait(LATE)
        self.received += count
        if self.received > self.allowed:
            raise ConnectionAbortedError
        return count

    def drop(self):
        """Ends it, whatever its thread waits for."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)


class Connections:
    """The open connections, at most `most` of them."""

    def __init__(self, most=MOST):
        self.most, self._open, self._lock = most, {}, Lock()

    def add(self, request):
        """Adds a connection; if there are too many, drops the one that is waited for longest."""
        with self._lock:
            if len(self._open) >= self.most:
                self._drop_longest()
            self._open[request] = Connection(request)

    def of(self, request):
        """Returns the Connection of a socket, also of one that is dropped already."""
        return self._open.get(request) or Connection(request)

    def remove(self, request):
        """Forgets a connection that is closed."""
        with self._lock:
            self._open.pop(request, None)

    def drop_late(self):
        """Drops those that are waited for too long."""
        with self._lock:
            for one in self._open.values():
                if one.late:
                    one.drop()

    def drop_longest(self):
        """Drops the one that is waited for longest."""
        with self._lock:
            self._drop_longest()

    def _drop_longest(self):
        waiting = [one for one in self._open.values() if one.patience < math.inf]
        if waiting:
            longest = min(waiting, key=lambda one: one.since)
            longest.drop()
            del self._open[longest.socket]
