"""demo.py, with requests as a browser sends them, compared with NumPy and MNIST."""

import base64
import contextlib
import http.client
import json
import re
import shutil
import signal
import threading
import time
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from inference import demo
from inference.serving.classifier import softmax
from inference.serving.drawing import fit, takes_drawings, trace
from inference.serving.page import SIDE, load_files
from tests.helpers.demo import RGB, encoded, served, started
from tests.helpers.exports import INSIDE, MEAN, STD, write_onnx
from tests.helpers.project import ROOT
from utils import UserError


@pytest.fixture(scope="module")
def server(linear_export):
    with served(linear_export) as server:
        yield server


def ask(server, method="GET", path="/", body=None, **headers):
    """Returns the status, the headers and the content of an answer; JSON is parsed."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    with contextlib.closing(connection):
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        content = answer.read()
        if answer.headers["Content-Type"] == "application/json":
            content = json.loads(content)
        return answer.status, answer.headers, content


def probabilities(pixels, weights):
    """NumPy's probabilities for an image."""
    return softmax((pixels.reshape(-1) / 255 - MEAN) / STD @ weights[0] + weights[1])


def pixels_of(answer, *shape):
    return np.frombuffer(base64.b64decode(answer["pixels"]), np.uint8).reshape(shape)


# Drawings ----------------------------------------------------------------------------------------


def test_fitting_a_digit_of_mnist_changes_nothing(mnist_images):
    boxes = [np.ptp(np.argwhere(digit), axis=0).max() + 1 for digit in mnist_images]
    fitted = [digit for digit, box in zip(mnist_images, boxes, strict=True) if box == 20]
    assert len(fitted) > 0.99 * len(mnist_images)
    for digit in fitted:
        np.testing.assert_array_equal(fit(digit, 28), digit)


def test_fitting_a_larger_digit_in_any_place_restores_it_nearly(mnist_images):
    random = np.random.default_rng(0)
    for digit in mnist_images[:50]:
        paper = np.zeros((448, 448), np.uint8)
        top, left = random.integers(0, 448 - 224, 2)
        paper[top : top + 224, left : left + 224] = digit.repeat(8, 0).repeat(8, 1)
        likeness = np.corrcoef(fit(paper, 28).reshape(-1), digit.reshape(-1))[0, 1]
        assert likeness > 0.97


@given(
    arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40))), st.sampled_from([28, 32])
)
def test_any_ink_is_fitted_into_the_box_and_centred_by_its_mass(ink, size):
    if not ink.any():
        with pytest.raises(UserError, match="nothing in the picture"):
            fit(ink, size)
        return
    image = fit(ink, size)
    assert (image.shape, image.dtype) == ((size, size), np.uint8)
    places = np.argwhere(image)
    if not len(places):
        return  # specks, too faint to remain
    assert np.ptp(places, axis=0).max() < round(size * 20 / 28)
    for axis, mass in enumerate((image.sum(1), image.sum(0))):
        centre = np.average(np.arange(size), weights=mass)
        at_the_edge = {0, size - 1} & {*places[:, axis]}
        assert abs(centre - size / 2) <= 0.5 + 1e-6 or at_the_edge


def test_dark_on_light_and_light_on_dark_are_the_same_ink():
    paper = np.full((40, 60), 230, np.uint8)
    paper[10:30, 20:25] = 30
    np.testing.assert_array_equal(trace(paper), trace(255 - paper))
    np.testing.assert_array_equal(trace(paper) == 255, paper == 30)
    grain = np.random.default_rng(0).integers(200, 215, (40, 60)).astype(np.uint8)
    assert not trace(grain).any()


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((1, 28, 28), True),
        ((1, 64, 64), True),
        ((1, 65, 65), False),
        ((1, 28, 32), False),
        ((3, 28, 28), False),
    ],
)
def test_networks_for_small_square_grey_images_take_drawings(shape, expected):
    assert takes_drawings(shape) == expected


# Questions without a browser ---------------------------------------------------------------------


def test_both_runtimes_answer_a_drawing_as_numpy_does(server, weights):
    ink = np.zeros((SIDE, SIDE), np.uint8)
    ink[20:200, 100:120] = 255
    status, _, answer = ask(server, "POST", "/drawing", ink.tobytes())
    assert status == 200
    pixels = pixels_of(answer, 28, 28)
    np.testing.assert_array_equal(pixels, fit(ink, 28))
    assert answer["classes"][:2] == ["zero", "one"]
    expected = probabilities(pixels, weights)
    for one, name in zip(answer["answers"], ("ONNX", "TFLite"), strict=True):
        assert one["name"] == name
        np.testing.assert_allclose(one["shown"], expected, rtol=1e-4)
        assert one["best"] == answer["classes"][expected.argmax()]
        assert one["probability"] == max(one["shown"])
        assert 0 < one["milliseconds"] < 1000


def test_an_image_of_the_networks_size_is_used_unchanged(server, mnist_images, weights):
    status, _, answer = ask(server, "POST", "/image?name=7.png", encoded(mnist_images[0]))
    assert status == 200
    np.testing.assert_array_equal(pixels_of(answer, 28, 28), mnist_images[0])
    np.testing.assert_allclose(
        answer["answers"][0]["shown"], probabilities(mnist_images[0], weights), rtol=1e-4
    )
    assert answer["prepared"] == "as it is in the file"


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_a_larger_image_of_a_digit_is_fitted_like_a_drawing(server, mnist_images, form):
    paper = np.zeros((300, 500), np.uint8)
    paper[30:254, 200:424] = mnist_images[0].repeat(8, 0).repeat(8, 1)
    paper = (230 - 0.8 * paper).astype(np.uint8)
    status, _, answer = ask(server, "POST", "/image", encoded(paper, form))
    assert status == 200
    likeness = np.corrcoef(pixels_of(answer, 784), mnist_images[0].reshape(-1))[0, 1]
    assert likeness > 0.95
    assert "stands out" in answer["prepared"]


def test_other_networks_read_images_as_predict_does_and_show_the_likeliest_classes(colour_export):
    path, matrix, names = colour_export
    image = np.random.default_rng(2).integers(0, 256, (9, 11, 3), np.uint8)
    resized = np.asarray(Image.fromarray(image).resize((5, 4), Image.Resampling.BILINEAR))
    with served(path) as server:
        status, _, answer = ask(server, "POST", "/image", encoded(image))
        refused, _, why = ask(server, "POST", "/drawing", bytes(SIDE**2))
    assert (status, refused) == (200, 400)
    assert "if the network takes drawings" in why["error"]
    pixels = resized.transpose(2, 0, 1)
    np.testing.assert_array_equal(pixels_of(answer, *RGB), pixels)
    expected = softmax(pixels.reshape(-1).astype(float) @ matrix)
    order = np.argsort(-expected)[:12]
    assert answer["classes"] == [names[index] for index in order]
    np.testing.assert_allclose(answer["answers"][0]["shown"], expected[order], rtol=1e-4)
    assert answer["prepared"] == "resized from 11 × 9"


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.test"},
        {"Host": "evil.test:{port}"},
        {"Host": "127.0.0.1"},
        {"Origin": "http://evil.test"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "https://127.0.0.1:{port}"},
        {"Origin": "null"},
        {"Host": "localhost:{port}", "Origin": "http://127.0.0.1:{port}"},
    ],
)
def test_other_sites_are_refused(server, method, headers):
    headers = {name: value.format(port=server.server_port) for name, value in headers.items()}
    body = bytes(SIDE**2) if method == "POST" else None
    path = "/drawing" if method == "POST" else "/"
    status, _, answer = ask(server, method, path, body, **headers)
    assert status == 403
    assert "only http://127.0.0.1:" in answer["error"]


def test_the_page_may_send_requests_to_both_names_of_this_computer(server):
    for name in ("127.0.0.1", "localhost"):
        host = f"{name}:{server.server_port}"
        status, headers, _ = ask(server, Host=host, Origin=f"http://{host}")
        assert status == 200
        assert "Access-Control-Allow-Origin" not in headers


def test_the_page_loads_nothing_from_outside_and_its_policy_forbids_it(server):
    _, headers, content = ask(server)
    assert headers["Content-Security-Policy"].startswith("default-src 'none'; ")
    assert headers["X-Content-Type-Options"] == "nosniff"
    html = content.decode()
    assert set(re.findall(r"(?:src|href|action)=\"?(.{6})", html)) == {"data:,"}
    assert not re.search(r"https?://|@import|url\(", html)
    nonces = re.findall(r"nonce[-=]\"?([\w-]+)", html + headers["Content-Security-Policy"])
    assert len(nonces) == 4
    assert len({*nonces}) == 1
    assert nonces[0] not in ask(server)[2].decode()


@pytest.mark.parametrize(
    ("headers", "status", "words"),
    [
        ({"Content-Length": "99999999999"}, 413, "at most 16 MiB"),
        ({"Content-Length": "-1"}, 411, "Content-Length"),
        ({"Content-Length": "many"}, 411, "Content-Length"),
        ({"Transfer-Encoding": "chunked"}, 411, "Content-Length"),
    ],
)
def test_bodies_too_large_or_of_unknown_size_are_refused_unread(server, headers, status, words):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    with contextlib.closing(connection):
        connection.putrequest("POST", "/image")
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        assert answer.status == status
        assert words in json.loads(answer.read())["error"]
        assert answer.headers["Connection"] == "close"
    assert ask(server)[0] == 200


def bomb():
    """A PNG file of a few hundred bytes that claims 900 million pixels."""

    def chunk(kind, content):
        checksum = zlib.crc32(kind + content).to_bytes(4, "big")
        return len(content).to_bytes(4, "big") + kind + content + checksum

    header = (30_000).to_bytes(4, "big") * 2 + bytes([1, 0, 0, 0, 0])
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(10_000)))
    return b"\x89PNG\r\n\x1a\n" + data + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "odd.png: cannot be read as a picture"),
        (b"hello", "odd.png: cannot be read as a picture"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "cannot be read as a picture: SVG drawing"),
        (encoded(np.eye(28, dtype=np.uint8))[:50], "odd.png: cannot be read as a picture"),
        (encoded(np.eye(28, dtype=np.uint8), "GIF")[:20], "GIF image, cut off or damaged"),
        (bomb(), "decompression bomb"),
        (encoded(np.full((50, 50), 99, np.uint8)), "there is nothing in the picture"),
    ],
    ids=["empty", "text", "svg", "cut", "gif", "bomb", "flat"],
)
def test_a_bad_image_is_one_clear_message(server, content, words):
    status, _, answer = ask(server, "POST", "/image?name=odd.png", content)
    assert status == 400
    assert words in answer["error"]
    assert "\n" not in answer["error"]
    assert "object at" not in answer["error"]


def test_unknown_paths_and_drawings_of_another_size_are_refused(server):
    assert ask(server, path="/etc/passwd")[0] == 404
    assert ask(server, "POST", "/other", b"")[0] == 404
    status, _, answer = ask(server, "POST", "/drawing", bytes(10))
    assert (status, "10 bytes" in answer["error"]) == (400, True)
    assert "nothing" in ask(server, "POST", "/drawing", bytes(SIDE**2))[2]["error"]
    assert ask(server, "PUT", "/")[0] == 501


def test_many_pages_at_once_get_their_own_answers(server, mnist_images, weights):
    found = {}

    def one(index):
        found[index] = ask(server, "POST", "/image", encoded(mnist_images[index]))[2]

    threads = [threading.Thread(target=one, args=[index]) for index in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index, answer in found.items():
        for one in answer["answers"]:
            np.testing.assert_allclose(
                one["shown"], probabilities(mnist_images[index], weights), rtol=1e-4
            )


def test_small_pictures_are_answered_while_large_ones_are_decoded(server, mnist_images):
    release = threading.Event()
    server.workers["image"].submit(release.wait, 60)  # a large one, as long as the test wants
    try:
        for _ in range(3):
            assert ask(server, "POST", "/image", encoded(mnist_images[0]))[0] == 200
        large = encoded(mnist_images[0].repeat(100, 0).repeat(100, 1))  # in a small file
        status, _, answer = ask(server, "POST", "/image", large)
        assert (status, answer) == (
            503,
            {"error": "the demo is busy with other pictures; try again"},
        )
        assert ask(server)[0] == 200
    finally:
        release.set()
    assert ask(server, "POST", "/image", large)[0] == 200


def test_a_network_that_diverged_is_reported(weights, tmp_path, mnist_images):
    write_onnx(tmp_path / "nan.onnx", (weights[0] * np.nan, weights[1]), INSIDE)
    with served(tmp_path / "nan.onnx") as server:
        status, _, answer = ask(server, "POST", "/image", encoded(mnist_images[0]))
    assert status == 400
    assert "nan.onnx answers NaN" in answer["error"]


# The command -------------------------------------------------------------------------------------


def test_a_missing_or_damaged_file_is_reported_and_the_other_one_is_used(
    linear_export, tmp_path, capsys
):
    folder = tmp_path / "linear"
    shutil.copytree(linear_export, folder)
    (folder / "linear.tflite").unlink()
    assert [file.name for file in load_files(str(folder))] == ["ONNX"]
    assert re.match("warning: .*no linear.tflite; there is linear.onnx", capsys.readouterr().err)
    (folder / "linear.tflite").write_bytes(b"no network")
    assert [file.name for file in load_files(str(folder))] == ["ONNX"]
    assert "linear.tflite: not a network" in capsys.readouterr().err
    (folder / "linear.onnx").write_bytes(b"no network")
    assert demo.main(["--name", str(folder), "--port", "0", "--no-browser"]) == 1
    assert re.fullmatch("error: .*linear.onnx: not a network.*\n", capsys.readouterr().err)


def test_a_mistake_in_the_command_is_one_error(linear_export, server, capsys, tmp_path, weights):
    def refusal(*arguments):
        assert demo.main([*map(str, arguments), "--no-browser"]) == 1
        err = capsys.readouterr().err
        assert (err[:7], err.count("\n")) == ("error: ", 1)
        return err

    assert "no such export" in refusal("--name", "nothing", "--port", 0)
    taken = refusal("--name", linear_export, "--port", server.server_port)
    assert f"--port {server.server_port}: address already in use; name another one" in taken
    write_onnx(tmp_path / "thin.onnx", weights, INSIDE, size=(784,))
    assert "expected a picture" in refusal("--name", tmp_path / "thin.onnx", "--port", 0)
    for port in ("65536", "-1", "many"):
        with pytest.raises(SystemExit):
            demo.main(["--name", str(linear_export), "--port", port])
        assert "--port" in capsys.readouterr().err


def test_neither_jax_nor_tensorflow_is_imported(linear_export, script):
    program = (
        "import sys; from inference.demo import Demo; demo = Demo(sys.argv[1]);"
        "demo.answer_drawing(bytes([9]) * 224 * 224); print(len(demo.page('nonce')) > 0);"
        "print({'jax', 'jaxlib', 'tensorflow', 'tf2onnx', 'onnx', 'training'} & sys.modules.keys())"
    )
    done = script("-c", program, linear_export)
    assert (done.stdout, done.stderr) == ("True\nset()\n", "")


def test_ctrl_c_ends_it_cleanly_even_while_a_page_is_connected(linear_export):
    command = [ROOT / "inference" / "demo.py", "--name", linear_export, "--port", 0, "--no-browser"]
    with started(*command) as (process, address):
        connection = http.client.HTTPConnection(address.split("/")[2])
        with contextlib.closing(connection):
            connection.request("GET", "/")
            assert connection.getresponse().status == 200
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (0, "\nThe demo has ended.\n", "")


@pytest.mark.parametrize("display", [":0", ""])
def test_it_opens_the_users_browser_if_there_is_one_with_a_window(linear_export, tmp_path, display):
    browser, opened = tmp_path / "browser", tmp_path / "opened"
    browser.write_text(f"#!/bin/sh\necho $1 > {opened}\n")
    browser.chmod(0o755)
    command = [ROOT / "inference" / "demo.py", "--name", linear_export, "--port", 0]
    named = {"BROWSER": str(browser), "DISPLAY": display, "WAYLAND_DISPLAY": ""}
    with started(*command, **named) as (process, address):
        until = time.monotonic() + (20 if display else 0.5)
        while not opened.exists() and time.monotonic() < until:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
    assert process.returncode == 0
    assert (opened.read_text().strip() if opened.exists() else "") == (address if display else "")
