"""The programs of docs/export.md around an exported file, run as they are written there."""

import contextlib
import http.client
import json
import subprocess
import threading
import time

import numpy as np
import pytest
import uvicorn

from inference.serving.classifier import softmax
from tests.helpers import pages
from tests.helpers.demo import encoded
from tests.helpers.exports import INSIDE, MEAN, NAMES, OUTSIDE, STD, write_onnx

PAGE = "docs/export.md"


@pytest.fixture
def folder(weights, tmp_path, monkeypatch):
    """`folder(preprocess)` makes the export that the programs name, and enters its folder."""

    def folder(preprocess=INSIDE):
        (tmp_path / "inference/digits").mkdir(parents=True)
        write_onnx(tmp_path / "inference/digits/digits.onnx", weights, preprocess)
        monkeypatch.chdir(tmp_path)
        return tmp_path

    return folder


def program(name):
    """The text of a file that the page shows."""
    (found,) = [text for _, text in pages.blocks(PAGE) if text.split("\n")[0].endswith(f" {name}")]
    return found


@pytest.fixture(params=[INSIDE, OUTSIDE], ids=["inside", "outside"])
def service(request, folder):
    """The port of the page's web service; one export leaves the preprocessing to it."""
    folder(request.param)
    names = {}
    exec(compile(program("service.py"), "service.py", "exec"), names)
    server = uvicorn.Server(uvicorn.Config(names["app"], port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    thread.join()


def ask(port, body, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    with contextlib.closing(connection):
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request("POST", "/predict", body, named)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())


def test_the_service_answers_pictures_and_json_as_numpy_does(service, mnist_images, weights):
    digit = mnist_images[0]
    expected = softmax((digit.reshape(-1) / 255 - MEAN) / STD @ weights[0] + weights[1])
    body = json.dumps([digit.tolist()])
    for status, found in (
        ask(service, encoded(digit), Content_Type="image/png"),
        ask(service, body, Content_Type="application/json"),
    ):
        assert (status, [*found]) == (200, NAMES)
        np.testing.assert_allclose([*found.values()], expected, rtol=1e-4)


def test_the_service_refuses_what_is_too_large_or_no_picture_in_words(service):
    kind = "application/json"
    refused = {
        "at most 4194304 bytes": (413, bytes(2**22 + 1), "image/png"),
        "the picture: cannot be read as a picture": (422, b"hello", "image/png"),
        "expected pixels of shape (1, 28, 28), got (1, 1, 2)": (422, "[[[0, 1]]]", kind),
        "less than or equal to 255": (422, "[[[256]]]", kind),
        "valid integer": (422, "[[[0.5]]]", kind),
        "Invalid JSON": (422, "[[[", kind),
    }  # fmt: skip
    for words, (expected, body, kind) in refused.items():
        status, answer = ask(service, body, Content_Type=kind)
        assert (status, words in answer["detail"]) == (expected, True), answer


def test_the_javascript_program_runs_in_node(folder, node_modules, weights):
    here = folder()
    (here / "node_modules").symlink_to(node_modules)
    (here / "serve.js").write_text(program("serve.js"))
    done = subprocess.run(["node", "serve.js"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    shape, _, values = done.stdout.partition("]")
    assert shape == "[ 5, 10 "
    expected = np.full(784, -MEAN / STD) @ weights[0] + weights[1]
    found = np.array(values.split(), float).reshape(5, 10)
    np.testing.assert_allclose(found, np.tile(expected, (5, 1)), atol=1e-5)
