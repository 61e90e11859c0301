"""The demo while 200 connections misbehave: its memory, and how soon others are answered.

python benchmarks/demo_under_load.py [--seconds 20] [--connections 200]

The connections are silent, send a byte now and then, stop within a request or a picture, send
headers without end, do not read their answers, or upload the largest pictures there are. Meanwhile
a well-behaved client loads the page, draws, and sends small pictures.
"""

import argparse
import contextlib
import io
import json
import multiprocessing
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from PIL import Image

from tests.helpers.exports import INSIDE, write_onnx, write_tflite
from utils import ROOT

SIDE = 224  # pixels of a drawing


def pictures():
    """Returns uploads that take much to decode, each as (name, bytes)."""
    side = 3162  # 10 million pixels, as many as are decoded
    found = []
    for name, mode, form, options in [
        ("png", "RGBA", "PNG", {}), ("large", "RGBA", "PNG", {}), ("jpeg", "RGB", "JPEG", {}),
        ("progressive", "RGB", "JPEG", {"progressive": True}), ("tiff", "F", "TIFF", {}),
        ("tiff16", "I;16", "TIFF", {"compression": "tiff_deflate"}), ("gif", "P", "GIF", {}),
    ]:  # fmt: skip
        size = (9450, 9450) if name == "large" else (8000, 8000) if name == "jpeg" else (side, side)
        file = io.BytesIO()
        Image.new(mode, size).save(file, form, **options)
        if len(file.getvalue()) <= 2**24:
            found.append((name, file.getvalue()))
    return found


def misbehave_at_once(connections, kinds, port, uploads):
    """That many connections at once, of all kinds, until the process is ended."""
    for index in range(connections):
        arguments = (kinds[index % len(kinds)], port, uploads)
        threading.Thread(target=misbehave, args=arguments).start()


def misbehave(kind, port, uploads):
    """One connection after another of a kind."""
    head = f"POST /image?name=x HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5) as s:
            s.settimeout(1)
            if kind == "silent":
                time.sleep(5)
            elif kind == "trickle":
                for byte in (
                    f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nX: ".encode() + b"x" * 1000
                ):
                    s.sendall(bytes([byte]))
                    time.sleep(0.2)
            elif kind == "cut":
                s.sendall(f"{head}Content-Length: {2**24}\r\n\r\n".encode() + bytes(2**23))
                time.sleep(5)
            elif kind == "headers":
                s.sendall(head.encode())
                for index in range(100):
                    s.sendall(f"X{index}: {'x' * 60_000}\r\n".encode())
            elif kind == "deaf":
                s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
                s.sendall(f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode() * 500)
                time.sleep(5)
            else:
                content = uploads[kind]
                s.settimeout(20)
                s.sendall(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
                s.recv(2**16)


def behave(port, seconds):
    """A client that loads the page, draws, and sends a small picture.

    Returns {kind: seconds of each request} and {kind: how often it was refused, and why}.
    """
    ink = np.zeros((SIDE, SIDE), np.uint8)
    ink[20:200, 100:120] = 255
    file = io.BytesIO()
    Image.fromarray(ink[::8, ::8]).save(file, "PNG")
    requests = {"page": ("/", None), "drawing": ("/drawing", ink.tobytes()),
                "picture": ("/image?name=7.png", file.getvalue())}  # fmt: skip
    times, failures, end = {}, {}, time.monotonic() + seconds
    while time.monotonic() < end:
        for kind, (path, body) in requests.items():
            start = time.perf_counter()
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", body, 10) as answer:
                    answer.read()
            except OSError as error:
                failures[f"{kind}: {error}"] = failures.get(f"{kind}: {error}", 0) + 1
            times.setdefault(kind, []).append(time.perf_counter() - start)
            time.sleep(0.05)
    return times, failures


def peak_memory(pid):
    """The most memory that a process has had, in MB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1000


def main():
    """Prints a table, and whether all was within the limits."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--connections", type=int, default=200)
    parser.add_argument("--kinds", nargs="+", help="of connections; by default all")
    options = parser.parse_args()
    random = np.random.default_rng(0)
    weights = random.normal(size=(784, 10)).astype(np.float32) / 50, np.zeros(10, np.float32)
    uploads = dict(pictures())
    kinds = options.kinds or ["silent", "trickle", "cut", "headers", "deaf", *uploads]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "linear")
        path.mkdir()
        write_onnx(path / "linear.onnx", weights, INSIDE)
        write_tflite(path / "linear.tflite", weights)
        command = [
            sys.executable,
            "inference/demo.py",
            "--name",
            path,
            "--port",
            "0",
            "--no-browser",
        ]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        try:
            port = int(re.search(r":(\d+)/", process.stdout.readline())[1])
            before = peak_memory(process.pid)
            # In a process of its own, as its threads would delay each other and the good client.
            crowd = multiprocessing.Process(
                target=misbehave_at_once, args=(options.connections, kinds, port, uploads)
            )
            crowd.start()
            time.sleep(2)
            times, failures = behave(port, options.seconds)
            peak = peak_memory(process.pid)
        finally:
            crowd.kill()
            process.kill()
    print(f"{options.connections} connections: {', '.join(kinds)}")
    for kind, found in times.items():
        found = sorted(found)
        print(f"{kind:<8} {len(found):>5} requests, median {found[len(found) // 2]:.3f} s, "
              f"slowest {found[-1]:.3f} s")  # fmt: skip
    print(f"refused: {json.dumps(failures)}")
    print(f"memory: {before:.0f} MB before, {peak:.0f} MB at the peak")
    slowest = max(max(found) for found in times.values())
    good = slowest < 1 and peak < 500 and not failures
    print("all answered within 1 s and 500 MB" if good else "REFUSED, or BEYOND 1 s or 500 MB")
    return 0 if good else 1


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    sys.exit(main())
