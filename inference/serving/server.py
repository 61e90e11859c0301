"""The demo's web server, for this computer only."""

import io
import json
import secrets
import sys
import time
import urllib.parse
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Semaphore

from inference.serving.connections import IDLE, LATE, MOST, UPLOAD, Connections
from inference.serving.page import LARGEST_UPLOAD
from utils import UserError

try:
    import resource
except ImportError:  # on Windows
    resource = None

ADDRESS = "127.0.0.1"
BUSY = 0.5  # seconds that a request waits for its turn
LARGE = 2**17  # bytes of a body; larger ones are read and decoded one or two at a time
POLICY = (
    "default-src 'none'; script-src 'nonce-{0}'; style-src 'nonce-{0}'; connect-src 'self'; "
    "img-src blob: data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def listen(demo, port):
    """Returns the server of a Demo, bound to its port.

    Raises:
        UserError: the port is taken or not allowed.
    """
    try:
        return Server((ADDRESS, port), partial(Handler, demo))
    except OSError as error:
        raise UserError(
            f"--port {port}: {error.strerror.lower()}; name another one, or 0 for any that is free"
        ) from None


class Server(ThreadingHTTPServer):
    """A server that Ctrl-C ends at once, and that bad clients keep from nobody.

    One drawing, one small image and one other are computed at a time, each in a thread of its own,
    and two large bodies are read: that bounds the memory, and a large image delays only its like.
    """

    daemon_threads = True
    request_queue_size = 256  # connections that wait to be accepted

    def __init__(self, *arguments):
        self.connections = Connections(_most_connections())
        self.workers = {kind: ThreadPoolExecutor(1) for kind in ("drawing", "small", "image")}
        self.uploads = Semaphore(2)
        super().__init__(*arguments)

    def compute(self, kind, function, *arguments):
        """Returns what a function does in its turn; raises TimeoutError if that is too far away."""
        future = self.workers[kind].submit(function, *arguments)
        try:
            return future.result(BUSY)
        except TimeoutError:
            if future.cancel():
                raise
            return future.result()

    def get_request(self):
        """Accepts a connection; where the process has no more files, one is dropped first."""
        try:
            return super().get_request()
        except OSError:
            self.connections.drop_longest()
            time.sleep(0.01)  # until its thread has closed it
            raise

    def process_request(self, request, client_address):
        """Starts a thread for a connection."""
        self.connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request):
        """Closes a connection."""
        self.connections.remove(request)
        super().shutdown_request(request)

    def service_actions(self):
        """Drops connections that are too slow, about twice a second."""
        self.connections.drop_late()

    def server_close(self):
        """Ends the server."""
        super().server_close()
        for worker in self.workers.values():
            worker.shutdown(wait=False, cancel_futures=True)

    def handle_error(self, request, client_address):
        """Prints an error in a thread, unless the connection has ended."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


def _most_connections():
    """How many connections there may be: each takes one of the files that a process may open."""
    if resource is None:
        return MOST
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST if limit == resource.RLIM_INFINITY else max(1, min(MOST, limit // 2))


class Handler(BaseHTTPRequestHandler):
    """Serves the page and answers its requests; refuses those of other sites.

    Another site's page could post here (so Origin is checked), or reach this server under a domain
    name that resolves to this computer (so Host is checked).
    """

    protocol_version = "HTTP/1.1"  # one connection serves many strokes
    disable_nagle_algorithm = True  # which delays answers by 40 ms
    timeout = IDLE

    def __init__(self, demo, *arguments):
        self.demo = demo
        super().__init__(*arguments)

    def setup(self):
        """Reads through the Connection, which counts the bytes."""
        super().setup()
        self.client = self.server.connections.of(self.request)
        self.rfile = io.BufferedReader(self.client)

    def handle_one_request(self):
        """Waits for a request and answers it."""
        self.client.await_request()
        super().handle_one_request()

    def do_GET(self):
        """Serves the page."""
        if self._is_foreign():
            return
        if urllib.parse.urlsplit(self.path).path != "/":
            self._refuse(404, f"{self.path}: not found; the demo is at /")
            return
        nonce = secrets.token_urlsafe()
        page = self.demo.page(nonce).encode(errors="backslashreplace")
        self._send(200, "text/html; charset=utf-8", page, POLICY.format(nonce))

    def do_POST(self):
        """Answers a drawing or an image."""
        length = None if self._is_foreign() else self._length()
        if length is None:
            return
        large = length > LARGE
        if large and not self.server.uploads.acquire(timeout=BUSY):
            self._refuse(503, "the demo is busy with other pictures; try again", close=True)
            return
        try:
            self._answer(self._read(length, UPLOAD if large else LATE))
        except UserError as error:
            self._refuse(400, str(error))
        except TimeoutError:
            self._refuse(503, "the demo is busy with other pictures; try again")
        finally:
            if large:
                self.server.uploads.release()

    def _answer(self, content):
        """Sends the answer to a body."""
        url = urllib.parse.urlsplit(self.path)
        if url.path == "/drawing":
            answer = self.server.compute("drawing", self.demo.answer_drawing, content)
        elif url.path == "/image":
            names = urllib.parse.parse_qs(url.query).get("name", ["the picture"])
            answer = self._answer_image(content, names[0])
        else:
            self._refuse(404, f"{self.path}: not found; post to /drawing or /image")
            return
        self._send(200, "application/json", json.dumps(answer).encode())

    def _answer_image(self, content, name):
        """Returns the answer to an image, in the thread for images of its size."""
        compute, demo = self.server.compute, self.demo
        if len(content) <= LARGE and compute("small", demo.is_small, content, name):
            return compute("small", demo.answer_image, content, name, True)
        return compute("image", demo.answer_image, content, name)

    def log_message(self, *_):
        """Does not log requests: each stroke makes several."""

    def _is_foreign(self):
        """Whether a request is not from this page or its user; if so, refuses it."""
        port = self.server.server_port
        hosts = [f"{name}:{port}".removesuffix(":80") for name in (ADDRESS, "localhost")]
        host, origin = self.headers["Host"], self.headers["Origin"]
        if host in hosts and origin in (None, f"http://{host}"):
            return False
        self._refuse(403, f"only http://{hosts[0]}/ and its page may send requests", close=True)
        return True

    def _length(self):
        """Returns the size of the body; refuses one that is too large or unknown: None."""
        length = self.headers["Content-Length"] or ""
        if not (length.isascii() and length.isdigit() and len(length) < 20):
            self._refuse(411, "the size of the body is missing (Content-Length)", close=True)
        elif int(length) > LARGEST_UPLOAD:
            most = f"{LARGEST_UPLOAD // 2**20} MiB"
            self._refuse(413, f"got {int(length):,} bytes; expected at most {most}", close=True)
        else:
            return int(length)
        return None

    def _read(self, length, patience):
        """Returns the body; from then on, the other side is not waited for."""
        self.client.wait(patience)
        self.client.allowed += length
        content = self.rfile.read(length)
        if len(content) < length:
            raise ConnectionAbortedError
        self.client.wait()
        return content

    def _refuse(self, status, message, close=False):
        self.close_connection |= close  # else an unread body would be parsed as a request
        self._send(status, "application/json", json.dumps({"error": message}).encode())

    def _send(self, status, kind, content, policy="default-src 'none'"):
        self.client.wait(LATE)
        headers = {
            "Content-Type": kind,
            "Content-Length": len(content),
            "Content-Security-Policy": policy,
            "X-Content-Type-Options": "nosniff",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-store",
        }
        if self.close_connection:
            headers["Connection"] = "close"
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(content)
