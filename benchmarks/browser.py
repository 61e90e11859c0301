"""Controls a headless Chromium: pages, strokes, keys, screenshots.

    with Browser() as page:
        page.open("http://127.0.0.1:8028/")
        page.stroke([(100, 50), (100, 200)])
        page.wait("document.querySelector('.best').textContent === '1'")

It uses the DevTools protocol (https://chromedevtools.github.io/devtools-protocol) through two
pipes, so it opens no port and needs no package.
"""

import base64
import fcntl
import json
import os
import select
import shutil
import signal
import tempfile
import time
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)
TIMEOUT = 60  # seconds for an answer
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
    "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream",  # a camera
    "--remote-debugging-pipe", "about:blank",
)  # fmt: skip
KEYS = {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Escape": 27, "Tab": 9}
SHIFT = 8  # in a mask of modifiers


class Browser:
    """One page of a Chromium with its own profile, without a network."""

    def __enter__(self):
        self._folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self._start()
        self._count, self._unread, self._session = 0, b"", None
        self.faults = []  # exceptions of pages, and violations of their policies
        (page,) = (
            one["targetId"]
            for one in self.call("Target.getTargets")["targetInfos"]
            if one["type"] == "page"
        )
        attached = self.call("Target.attachToTarget", targetId=page, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        return self

    def __exit__(self, *_):
        os.close(self._into)
        os.close(self._outof)  # makes the browser end
        for _ in range(100):
            if os.waitpid(self._process, os.WNOHANG)[0]:
                break
            time.sleep(0.05)
        else:
            os.kill(self._process, signal.SIGKILL)
            os.waitpid(self._process, 0)
        self._folder.cleanup()

    def _start(self):
        """Starts Chromium, which reads from file descriptor 3 and writes to 4."""
        log = os.open(Path(self._folder.name) / "log", os.O_CREAT | os.O_WRONLY)
        low = [*os.pipe(), *os.pipe(), log]
        high = [fcntl.fcntl(one, fcntl.F_DUPFD_CLOEXEC, 10) for one in low]  # above 3, 4
        for one in low:
            os.close(one)
        theirs, into, outof, answers, log = high
        places = {theirs: (3,), answers: (4,), log: (1, 2)}
        self._process = os.posix_spawn(
            BROWSER,
            [BROWSER, *FLAGS, f"--user-data-dir={self._folder.name}/profile"],
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, ours, place) for ours in places for place in places[ours]
            ],
        )
        for one in places:
            os.close(one)
        self._into, self._outof = into, outof

    def call(self, method, **arguments):
        """Calls a method of the protocol and returns its result.

        Raises:
            RuntimeError: it failed, or did not answer in time.
        """
        self._count += 1
        message = {"id": self._count, "method": method, "params": arguments}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._into, json.dumps(message).encode() + b"\0")
        while (answer := self._read(method)).get("id") != self._count:
            self._note(answer)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        return answer["result"]

    def _note(self, event):
        entry = event["params"].get("entry", {})
        if event["method"] == "Runtime.exceptionThrown":
            self.faults.append(event["params"]["exceptionDetails"]["exception"]["description"])
        elif entry.get("level") == "error" and entry["source"] != "network":
            self.faults.append(entry["text"])

    def _read(self, method):
        deadline = time.monotonic() + TIMEOUT
        while b"\0" not in self._unread:
            left = deadline - time.monotonic()
            ready = left > 0 and select.select([self._outof], [], [], left)[0]
            chunk = os.read(self._outof, 2**16) if ready else b""
            if not chunk:
                raise RuntimeError(f"{method}: no answer from {BROWSER}")
            self._unread += chunk
        message, _, self._unread = self._unread.partition(b"\0")
        return json.loads(message)

    def evaluate(self, expression):
        """Returns the value of a JavaScript expression; awaits a promise."""
        answer = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def wait(self, expression, seconds=20):
        """Waits until an expression is true; returns its value.

        Raises:
            TimeoutError: it did not become true.
        """
        deadline = time.monotonic() + seconds
        while not (value := self.evaluate(expression)):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{expression} was not true within {seconds} s")
            time.sleep(0.02)
        return value

    def open(self, url):
        """Opens a page and waits until it is loaded."""
        self.call("Page.navigate", url=url)
        opened = f"location.href.startsWith({json.dumps(url)})"
        self.wait(f"{opened} && document.readyState === 'complete'")

    def stroke(self, points, pause=0):
        """Draws with the mouse: presses at the first of the (x, y), moves, releases at the last.

        Args:
            points: list of (x, y).
            pause: seconds between them.
        """
        self._mouse("mousePressed", *points[0], button="left", clickCount=1)
        for point in points[1:]:
            time.sleep(pause)
            self._mouse("mouseMoved", *point, button="left")
        self._mouse("mouseReleased", *points[-1], button="left", clickCount=1)

    def click(self, selector):
        """Clicks in the middle of an element."""
        x, y, width, height = self.box(selector)
        self.stroke([(x + width / 2, y + height / 2)])

    def box(self, selector):
        """Returns the left, top, width and height of an element."""
        box = f"document.querySelector({json.dumps(selector)}).getBoundingClientRect()"
        return self.evaluate(f"(({{x, y, width, height}}) => [x, y, width, height])({box})")

    def _mouse(self, kind, x, y, **more):
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    def press(self, *keys, shift=False):
        """Presses keys one after the other, optionally with Shift held down."""
        if shift:
            self._key("rawKeyDown", "Shift", 16, SHIFT)
        for key in keys:
            for kind in ("rawKeyDown", "keyUp"):
                self._key(kind, key, KEYS[key], SHIFT if shift else 0)
        if shift:
            self._key("keyUp", "Shift", 16, 0)

    def _key(self, kind, key, code, modifiers):
        self.call(
            "Input.dispatchKeyEvent", type=kind, key=key, code=key, modifiers=modifiers,
            windowsVirtualKeyCode=code,
        )  # fmt: skip

    def choose(self, selector, *paths):
        """Chooses files in an <input type="file">."""
        found = self.call("Runtime.evaluate", expression=f"document.querySelector('{selector}')")
        handle = found["result"]["objectId"]
        self.call("DOM.setFileInputFiles", files=[str(one) for one in paths], objectId=handle)

    def drop(self, x, y, *paths):
        """Drags files to a point of the page and drops them there."""
        data = {"items": [], "files": [str(one) for one in paths], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.call("Input.dispatchDragEvent", type=kind, x=x, y=y, data=data)

    def look(self, width, height, dark=False):
        """Sets the window's size, and whether the user prefers dark pages."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1,
            mobile=False,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def screenshot(self, path):
        """Writes a screenshot of the window as a PNG file."""
        content = self.call("Page.captureScreenshot", format="png")["data"]
        Path(path).write_bytes(base64.b64decode(content))
