"""What the tests of the demo share: it is served from a thread, or from a process of its own."""

import contextlib
import io
import os
import re
import subprocess
import sys
import threading

import numpy as np
from PIL import Image

from inference import demo

RGB = (3, 4, 5)  # channels, height, width
HOSTILE = "</script><img src=x onerror=alert(1)>"


@contextlib.contextmanager
def served(name):
    """Serves an export from a thread; yields the server."""
    with demo.listen(demo.Demo(str(name)), 0) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@contextlib.contextmanager
def started(*arguments, **environment):
    """The demo as a process of its own; yields it and its address."""
    process = subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    )
    with process:
        try:
            yield process, re.search(r"http://127\.0\.0\.1:\d+/", process.stdout.readline())[0]
        finally:
            process.kill()


def encoded(image, format="PNG", **options):
    """The bytes of an image file, of an array or a Pillow image."""
    file = io.BytesIO()
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    image.save(file, format, **options)
    return file.getvalue()
