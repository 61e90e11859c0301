"""The demo's web server, for this computer only."""

import json
import secrets
import sys
import urllib.parse
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from inference.serving.page import LARGEST_UPLOAD
from utils import UserError

ADDRESS = "127.0.0.1"
PATIENCE = 60  # seconds that a connection may be silent
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
    """A server that Ctrl-C ends at once, and that ignores pages closed during an answer."""

    daemon_threads = True

    def handle_error(self, request, client_address):
        """Prints an error in a thread, unless the other side closed the connection."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """Serves the page and answers its requests; refuses those of other sites.

    Another site's page could post here (so Origin is checked), or reach this server under a domain
    name that resolves to this computer (so Host is checked).
    """

    protocol_version = "HTTP/1.1"  # one connection serves many strokes
    disable_nagle_algorithm = True  # which delays answers by 40 ms
    timeout = PATIENCE

    def __init__(self, demo, *arguments):
        self.demo = demo
        super().__init__(*arguments)

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
        content = None if self._is_foreign() else self._read()
        if content is None:
            return
        url = urllib.parse.urlsplit(self.path)
        try:
            if url.path == "/drawing":
                answer = self.demo.answer_drawing(content)
            elif url.path == "/image":
                names = urllib.parse.parse_qs(url.query).get("name", ["the picture"])
                answer = self.demo.answer_image(content, names[0])
            else:
                self._refuse(404, f"{self.path}: not found; post to /drawing or /image")
                return
        except UserError as error:
            self._refuse(400, str(error))
            return
        self._send(200, "application/json", json.dumps(answer).encode())

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

    def _read(self):
        """Returns the body; refuses one that is too large or of unknown size, and returns None."""
        length = self.headers["Content-Length"] or ""
        if not (length.isascii() and length.isdigit()):
            self._refuse(411, "the size of the body is missing (Content-Length)", close=True)
        elif int(length) > LARGEST_UPLOAD:
            most = f"{LARGEST_UPLOAD // 2**20} MiB"
            self._refuse(413, f"got {int(length):,} bytes; expected at most {most}", close=True)
        else:
            return self.rfile.read(int(length))
        return None

    def _refuse(self, status, message, close=False):
        self.close_connection |= close  # else an unread body would be parsed as a request
        self._send(status, "application/json", json.dumps({"error": message}).encode())

    def _send(self, status, kind, content, policy="default-src 'none'"):
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
