"""inference/demo.py: asked as a browser asks, and drawn on in one; judged by NumPy and MNIST."""

import base64
import contextlib
import gzip
import http.client
import io
import json
import math
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

import train
from benchmarks.browser import BROWSER, Browser
from benchmarks.demo import oval, serving
from inference import convert_tflite, demo
from inference.serving import page as demo_page
from inference.serving.classifier import softmax
from inference.serving.drawing import fit, takes_drawings, trace
from tests.helpers.project import ROOT
from tests.inference.test_predict import INSIDE, MEAN, STD, write_onnx, write_tflite
from utils import UserError

README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMAND = re.search(r"^python inference/demo\.py.*$", README, re.MULTILINE)[0]
HOSTILE = "</script><img src=x onerror=alert(1)>"
ANSWERED = "performance.getEntriesByName('answer').length"
RGB = (3, 4, 5)  # channels, height, width
in_a_browser = pytest.mark.skipif(BROWSER is None, reason="there is no Chromium on the path")


@pytest.fixture(scope="module")
def digits():
    """The first of the real test pictures, (examples, 28, 28) uint8."""
    pixels = gzip.decompress((ROOT / "data/t10k-images-idx3-ubyte.gz").read_bytes())[16:]
    return np.frombuffer(pixels, np.uint8).reshape(-1, 28, 28)[:1000]


@pytest.fixture(scope="module")
def weights():
    """A linear network's (784, 10) and (10,)."""
    random = np.random.default_rng(0)
    return random.normal(size=(784, 10)).astype(np.float32) / 50, np.zeros(10, np.float32)


@pytest.fixture(scope="module")
def linear(weights, tmp_path_factory):
    """The export of a linear network, its ONNX and TFLite files written by hand."""
    folder = tmp_path_factory.mktemp("exports") / "linear"
    folder.mkdir()
    write_onnx(folder / "linear.onnx", weights, INSIDE)
    write_tflite(folder / "linear.tflite", weights)
    return folder


@pytest.fixture(scope="module")
def colours(tmp_path_factory):
    """An ONNX file for pictures in colour, of 20 classes, each with an odd name."""
    path = tmp_path_factory.mktemp("colours") / "colours.onnx"
    random = np.random.default_rng(1)
    matrix = random.normal(size=(math.prod(RGB), 20)).astype(np.float32) / 100
    names = [f"{HOSTILE} {index}" for index in range(20)]
    write_onnx(path, (matrix, np.zeros(20)), None, size=RGB, classes=names)
    return path, matrix, names


@pytest.fixture(scope="module")
def trained(mnist, tmp_path_factory):
    """The sample's data, a small network of two epochs, and its export."""
    folder = tmp_path_factory.mktemp("trained")
    config = json.loads((ROOT / "config.json").read_text())
    config["model"] = {"name": "mlp", "args": {"feat_dims": [64]}}
    loaders = config["data_loader"]
    loaders["train"]["args"]["dataset"]["args"]["root"] = str(ROOT / "data")
    loaders["test"]["args"]["dataset"]["args"]["root"] = str(mnist)  # a few are soon held against
    loaders["test"]["args"]["batch_size"] = 300
    config["training"] |= {"epochs": 2, "save_dir": str(folder / "saved")}
    (folder / "config.json").write_text(json.dumps(config))
    assert train.main(["-c", str(folder / "config.json")]) == 0
    (run,) = (folder / "saved").glob("*/*")
    arguments = ["--name", "jax_mnist", "-w", str(run), "--into", str(folder)]
    assert convert_tflite.main([*arguments, "--limit", "float32.agreement=0.99"]) == 0
    return folder / "jax_mnist"


@contextlib.contextmanager
def served(name):
    """Serves an export from a thread; yields the server."""
    with demo.listen(demo.Demo(str(name)), 0) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def server(linear):
    with served(linear) as server:
        yield server


def ask(server, method="GET", path="/", body=None, **headers):
    """Returns the status, the headers and the content of an answer; JSON as what it holds."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    with contextlib.closing(connection):
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        content = answer.read()
        if answer.headers["Content-Type"] == "application/json":
            content = json.loads(content)
        return answer.status, answer.headers, content


def encoded(picture, format="PNG", **options):
    """The bytes of an array or a picture as a file."""
    file = io.BytesIO()
    picture = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
    picture.save(file, format, **options)
    return file.getvalue()


def chances(pixels, weights):
    """NumPy's probabilities for a picture."""
    return softmax((pixels.reshape(-1) / 255 - MEAN) / STD @ weights[0] + weights[1])


def pixels_of(answer, *shape):
    return np.frombuffer(base64.b64decode(answer["pixels"]), np.uint8).reshape(shape)


# Drawings ----------------------------------------------------------------------------------------


def test_a_digit_of_mnist_comes_back_as_it_is(digits):
    boxes = [np.ptp(np.argwhere(digit), axis=0).max() + 1 for digit in digits]
    fitted = [digit for digit, box in zip(digits, boxes, strict=True) if box == 20]
    assert len(fitted) > 0.99 * len(digits)
    for digit in fitted:
        np.testing.assert_array_equal(fit(digit, 28), digit)


def test_a_digit_drawn_large_and_anywhere_comes_back_nearly(digits):
    random = np.random.default_rng(0)
    for digit in digits[:50]:
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
    picture = fit(ink, size)
    assert (picture.shape, picture.dtype) == ((size, size), np.uint8)
    places = np.argwhere(picture)
    if not len(places):
        return  # specks, too faint to be left
    assert np.ptp(places, axis=0).max() < round(size * 20 / 28)
    for axis, mass in enumerate((picture.sum(1), picture.sum(0))):
        centre = np.average(np.arange(size), weights=mass)
        at_the_rim = {0, size - 1} & {*places[:, axis]}
        assert abs(centre - size / 2) <= 0.5 + 1e-6 or at_the_rim


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
def test_small_square_grey_pictures_may_be_drawn(shape, expected):
    assert takes_drawings(shape) == expected


# Questions without a browser ---------------------------------------------------------------------


def test_a_drawing_is_answered_as_numpy_answers_by_both_runtimes(server, weights):
    ink = np.zeros((demo_page.SIDE, demo_page.SIDE), np.uint8)
    ink[20:200, 100:120] = 255
    status, _, answer = ask(server, "POST", "/drawing", ink.tobytes())
    assert status == 200
    pixels = pixels_of(answer, 28, 28)
    np.testing.assert_array_equal(pixels, fit(ink, 28))
    assert answer["classes"][:2] == ["zero", "one"]
    expected = chances(pixels, weights)
    for one, name in zip(answer["answers"], ("ONNX", "TFLite"), strict=True):
        assert one["name"] == name
        np.testing.assert_allclose(one["shown"], expected, rtol=1e-4)
        assert one["best"] == answer["classes"][expected.argmax()]
        assert one["probability"] == max(one["shown"])
        assert 0 < one["milliseconds"] < 1000


def test_a_picture_of_the_networks_size_is_taken_as_it_is(server, digits, weights):
    status, _, answer = ask(server, "POST", "/image?name=7.png", encoded(digits[0]))
    assert status == 200
    np.testing.assert_array_equal(pixels_of(answer, 28, 28), digits[0])
    np.testing.assert_allclose(
        answer["answers"][0]["shown"], chances(digits[0], weights), rtol=1e-4
    )
    assert answer["prepared"] == "as it is in the file"


@pytest.mark.parametrize("form", ["PNG", "JPEG"])
def test_a_larger_picture_of_a_digit_is_fitted_like_a_drawing(server, digits, form):
    paper = np.zeros((300, 500), np.uint8)
    paper[30:254, 200:424] = digits[0].repeat(8, 0).repeat(8, 1)
    paper = (230 - 0.8 * paper).astype(np.uint8)
    status, _, answer = ask(server, "POST", "/image", encoded(paper, form))
    assert status == 200
    likeness = np.corrcoef(pixels_of(answer, 784), digits[0].reshape(-1))[0, 1]
    assert likeness > 0.95
    assert "stands out" in answer["prepared"]


def test_other_networks_take_pictures_as_predict_does_and_show_the_likeliest(colours):
    path, matrix, names = colours
    picture = np.random.default_rng(2).integers(0, 256, (9, 11, 3), np.uint8)
    resized = np.asarray(Image.fromarray(picture).resize((5, 4), Image.Resampling.BILINEAR))
    with served(path) as server:
        status, _, answer = ask(server, "POST", "/image", encoded(picture))
        refused, _, why = ask(server, "POST", "/drawing", bytes(demo_page.SIDE**2))
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
    body = bytes(demo_page.SIDE**2) if method == "POST" else None
    path = "/drawing" if method == "POST" else "/"
    status, _, answer = ask(server, method, path, body, **headers)
    assert status == 403
    assert "only http://127.0.0.1:" in answer["error"]


def test_the_page_itself_may_ask_under_both_names_of_this_computer(server):
    for name in ("127.0.0.1", "localhost"):
        host = f"{name}:{server.server_port}"
        status, headers, _ = ask(server, Host=host, Origin=f"http://{host}")
        assert status == 200
        assert "Access-Control-Allow-Origin" not in headers


def test_the_page_refers_to_nothing_outside_and_its_policy_forbids_it(server):
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
def test_bodies_too_large_or_of_no_said_size_are_refused_unread(server, headers, status, words):
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
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "expected a whole PNG or JPEG file"),
        (encoded(np.eye(28, dtype=np.uint8))[:50], "odd.png: cannot be read as a picture"),
        (encoded(np.eye(28, dtype=np.uint8), "GIF"), "expected a whole PNG or JPEG file"),
        (bomb(), "decompression bomb"),
        (encoded(np.full((50, 50), 99, np.uint8)), "there is nothing in the picture"),
    ],
    ids=["empty", "text", "svg", "cut", "gif", "bomb", "flat"],
)
def test_a_bad_picture_is_one_clear_message(server, content, words):
    status, _, answer = ask(server, "POST", "/image?name=odd.png", content)
    assert status == 400
    assert words in answer["error"]
    assert "\n" not in answer["error"]
    assert "object at" not in answer["error"]


def test_what_is_not_there_and_drawings_of_another_size_are_refused(server):
    assert ask(server, path="/etc/passwd")[0] == 404
    assert ask(server, "POST", "/other", b"")[0] == 404
    status, _, answer = ask(server, "POST", "/drawing", bytes(10))
    assert (status, "10 bytes" in answer["error"]) == (400, True)
    assert "nothing" in ask(server, "POST", "/drawing", bytes(demo_page.SIDE**2))[2]["error"]
    assert ask(server, "PUT", "/")[0] == 501


def test_many_pages_at_once_are_answered_each_with_its_own(server, digits, weights):
    found = {}

    def one(index):
        found[index] = ask(server, "POST", "/image", encoded(digits[index]))[2]

    threads = [threading.Thread(target=one, args=[index]) for index in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index, answer in found.items():
        for one in answer["answers"]:
            np.testing.assert_allclose(one["shown"], chances(digits[index], weights), rtol=1e-4)


def test_a_network_that_diverged_is_told(weights, tmp_path, digits):
    write_onnx(tmp_path / "nan.onnx", (weights[0] * np.nan, weights[1]), INSIDE)
    with served(tmp_path / "nan.onnx") as server:
        status, _, answer = ask(server, "POST", "/image", encoded(digits[0]))
    assert status == 400
    assert "nan.onnx answers NaN" in answer["error"]


# The command -------------------------------------------------------------------------------------


def test_a_file_that_is_missing_or_damaged_is_told_and_the_other_one_goes_on(
    linear, tmp_path, capsys
):
    folder = tmp_path / "linear"
    shutil.copytree(linear, folder)
    (folder / "linear.tflite").unlink()
    assert [file.name for file in demo_page.load_files(str(folder))] == ["ONNX"]
    assert re.match("warning: .*no linear.tflite; there is linear.onnx", capsys.readouterr().err)
    (folder / "linear.tflite").write_bytes(b"no network")
    assert [file.name for file in demo_page.load_files(str(folder))] == ["ONNX"]
    assert "linear.tflite: not a network" in capsys.readouterr().err
    (folder / "linear.onnx").write_bytes(b"no network")
    assert demo.main(["--name", str(folder), "--port", "0", "--no-browser"]) == 1
    assert re.fullmatch("error: .*linear.onnx: not a network.*\n", capsys.readouterr().err)


def test_what_is_wrong_with_the_command_is_one_error(linear, server, capsys, tmp_path, weights):
    def refusal(*arguments):
        assert demo.main([*map(str, arguments), "--no-browser"]) == 1
        err = capsys.readouterr().err
        assert (err[:7], err.count("\n")) == ("error: ", 1)
        return err

    assert "no such export" in refusal("--name", "nothing", "--port", 0)
    taken = refusal("--name", linear, "--port", server.server_port)
    assert f"--port {server.server_port}: address already in use; name another one" in taken
    write_onnx(tmp_path / "thin.onnx", weights, INSIDE, size=(784,))
    assert "expected a picture" in refusal("--name", tmp_path / "thin.onnx", "--port", 0)
    for port in ("65536", "-1", "many"):
        with pytest.raises(SystemExit):
            demo.main(["--name", str(linear), "--port", port])
        assert "--port" in capsys.readouterr().err


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


def test_ctrl_c_ends_it_cleanly_even_while_a_page_is_connected(linear):
    command = [ROOT / "inference" / "demo.py", "--name", linear, "--port", 0, "--no-browser"]
    with started(*command) as (process, address):
        connection = http.client.HTTPConnection(address.split("/")[2])
        with contextlib.closing(connection):
            connection.request("GET", "/")
            assert connection.getresponse().status == 200
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (0, "\nThe demo has ended.\n", "")


@pytest.mark.parametrize("display", [":0", ""])
def test_it_opens_the_users_browser_if_there_is_one_with_a_window(linear, tmp_path, display):
    browser, opened = tmp_path / "browser", tmp_path / "opened"
    browser.write_text(f"#!/bin/sh\necho $1 > {opened}\n")
    browser.chmod(0o755)
    command = [ROOT / "inference" / "demo.py", "--name", linear, "--port", 0]
    named = {"BROWSER": str(browser), "DISPLAY": display, "WAYLAND_DISPLAY": ""}
    with started(*command, **named) as (process, address):
        until = time.monotonic() + (20 if display else 0.5)
        while not opened.exists() and time.monotonic() < until:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
    assert process.returncode == 0
    assert (opened.read_text().strip() if opened.exists() else "") == (address if display else "")


# In a browser ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser():
    with Browser() as page:
        yield page


@pytest.fixture(scope="module")
def address(trained):
    with served(trained) as server:
        yield f"http://127.0.0.1:{server.server_port}/"


@pytest.fixture
def page(browser, address):
    """The demo of the trained network, freshly loaded; nothing may go wrong in the page."""
    browser.faults.clear()
    browser.look(1280, 800)
    browser.open(address)
    yield browser
    assert browser.faults == []


def text(page, selector):
    return page.evaluate(f"document.querySelector({json.dumps(selector)}).textContent.trim()")


def texts(page, selector):
    found = f"[...document.querySelectorAll({json.dumps(selector)})]"
    return page.evaluate(f"{found}.map(one => one.textContent.trim())")


def line(box):
    """Points of a one within a box."""
    left, top, width, height = box
    return [
        (left + width * (0.55 - 0.1 * at), top + height * (0.2 + 0.6 * at))
        for at in np.linspace(0, 1, 15)
    ]


@in_a_browser
@pytest.mark.parametrize(("draw", "digit"), [(line, "1"), (oval, "0")])
def test_a_digit_that_is_drawn_is_read_by_both_runtimes(page, draw, digit):
    page.stroke(draw(page.box(".paper")))
    page.wait(ANSWERED)
    assert text(page, ".best") == digit
    assert re.fullmatch(r"\d+\.\d %, ONNX and TFLite agree", text(page, ".verdict"))
    assert re.match(r"Run [\d_-]+ · 50,890 parameters · jax_mnist.onnx and", text(page, "header p"))
    assert text(page, "[role=status]") == f"{digit}, {text(page, '.verdict')}"
    assert texts(page, ".likeliest th") == [digit]
    assert all(re.fullmatch(r"\d+\.\d\d ms per picture", time) for time in texts(page, ".time"))
    shares = [float(share.rstrip(" %")) for share in texts(page, ".share")]
    widths = page.evaluate(
        "[...document.querySelectorAll('.bar')].map(bar => 100 * bar.firstElementChild"
        ".getBoundingClientRect().width / bar.getBoundingClientRect().width)"
    )
    np.testing.assert_allclose(widths, shares, atol=0.2)
    assert sum(shares[::2]) == pytest.approx(100, abs=1)
    assert shares[::2] == pytest.approx(shares[1::2], abs=0.2)
    assert re.search(r"on the screen after \d+ ms", text(page, ".took"))


@in_a_browser
def test_beside_it_is_the_picture_that_the_network_sees(page):
    page.stroke(oval(page.box(".paper")))
    page.wait(ANSWERED)
    pixels = page.evaluate(
        "Array.from(document.querySelector('.seen').getContext('2d').getImageData(0, 0, 28, 28)"
        ".data)"
    )
    pixels = np.array(pixels).reshape(28, 28, 4)
    assert (pixels[..., 3] == 255).all()
    places = np.argwhere(pixels[..., 0])
    assert np.ptp(places, axis=0).max() + 1 == 20
    np.testing.assert_allclose(places.mean(0), 14, atol=0.55)
    assert pixels[14, 14, 0] == 0, "light on dark, and a nought is empty inside"
    assert "28 × 28 pixels it sees, fitted and centred like a digit of MNIST" in text(page, "main")


@in_a_browser
def test_the_answer_is_there_while_the_stroke_is_drawn_and_said_once_it_ends(page):
    points = line(page.box(".paper"))
    page._mouse("mousePressed", *points[0], button="left", clickCount=1)
    for point in points[1:]:
        page._mouse("mouseMoved", *point, button="left")
    page.wait("document.querySelector('.best').textContent === '1'")
    assert text(page, "[role=status]") == ""
    page._mouse("mouseReleased", *points[-1], button="left", clickCount=1)
    page.wait("document.querySelector('[role=status]').textContent.startsWith('1, ')")


@in_a_browser
@pytest.mark.parametrize("how", ["button", "key"])
def test_clearing_leaves_an_empty_sheet_even_if_answers_are_on_their_way(page, how):
    empty = texts(page, ".share")
    page.stroke(oval(page.box(".paper")))
    page.click(".clear") if how == "button" else page.press("Escape")
    time.sleep(0.3)
    assert text(page, ".best") == text(page, "[role=status]") == ""
    assert texts(page, ".share") == empty == ["–"] * 20
    page.stroke(line(page.box(".paper")))
    page.wait("document.querySelector('[role=status]').textContent.startsWith('1, ')")


@in_a_browser
@pytest.mark.parametrize("how", ["chosen", "dropped"])
def test_a_picture_is_answered_and_shown_and_drawing_begins_a_new_sheet(
    page, how, digits, tmp_path
):
    labels = gzip.decompress((ROOT / "data/t10k-labels-idx1-ubyte.gz").read_bytes())[8:]
    Image.fromarray(digits[0]).resize((280, 280)).save(tmp_path / "seven.png")
    if how == "chosen":
        page.choose("input[type=file]", tmp_path / "seven.png")
    else:
        page.drop(600, 400, tmp_path / "seven.png")
    page.wait(ANSWERED)
    assert text(page, ".best") == str(labels[0]) == "7"
    page.wait("document.querySelector('.dropped').naturalWidth === 280")
    assert page.box(".dropped")[2] > 200
    page.stroke(line(page.box(".paper")))
    page.wait("document.querySelector('[role=status]').textContent.startsWith('1, ')")
    assert page.box(".dropped")[2] == 0


@in_a_browser
def test_pictures_that_will_not_do_are_told_in_an_alert(page, digits, tmp_path):
    (tmp_path / "letter.png").write_text("Dear Sir or Madam")
    page.choose("input[type=file]", tmp_path / "letter.png")
    page.wait("document.querySelector('[role=alert]').textContent.includes('cannot be read')")
    assert text(page, "[role=alert]").startswith("letter.png: ")
    with open(tmp_path / "film.png", "wb") as file:
        file.truncate(demo_page.LARGEST_UPLOAD + 2**20)
    page.choose("input[type=file]", tmp_path / "film.png")
    assert text(page, "[role=alert]") == "film.png has 17.0 MiB; at most 16 are taken."
    for name in ("one.png", "two.png"):
        (tmp_path / name).write_bytes(encoded(digits[0]))
    page.drop(600, 400, tmp_path / "one.png", tmp_path / "two.png")
    page.wait(ANSWERED)
    assert text(page, "[role=alert]") == "Of 2 files only one.png was taken."
    page.stroke(oval(page.box(".paper")))
    page.wait("document.querySelector('[role=status]').textContent.startsWith('0, ')")
    assert text(page, "[role=alert]") == ""


@in_a_browser
def test_the_keyboard_draws_reaches_everything_and_clears(page):
    focused = "document.activeElement.className || document.activeElement.localName"
    page.press("Tab")
    assert page.evaluate(focused) == "paper"
    page.press("ArrowUp", "ArrowUp")
    assert text(page, ".best") == "", "without Shift the pen is up"
    page.press(*["ArrowDown"] * 16, shift=True)
    page.wait("document.querySelector('[role=status]').textContent.startsWith('1, ')")
    page.press("Tab")
    assert page.evaluate(focused) == "clear"
    page.press("Tab")
    assert page.evaluate("document.activeElement.type") == "file"
    page.press("Escape")
    assert text(page, ".best") == ""


@in_a_browser
def test_a_screen_reader_finds_a_name_for_everything(page):
    nodes = page.call("Accessibility.getFullAXTree")["nodes"]
    named = {
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in nodes
        if not node["ignored"]
    }
    for role, name in [
        ("heading", "Draw a digit"),
        ("application", "paper to draw on"),
        ("button", "Clear"),
        ("button", "Choose a picture"),
        ("image", "the picture as the network sees it"),
        ("table", "Probability of each class"),
        ("columnheader", "ONNX"),
        ("rowheader", "7"),
    ]:
        assert any(role == its and name in called for its, called in named), (role, name)
    roles = [node["role"]["value"] for node in nodes if not node["ignored"]]
    assert {"status", "alert", "main", "banner"} <= {*roles}


def luminance(colour):
    """Relative luminance of "rgb(r, g, b)" (https://www.w3.org/TR/WCAG21)."""
    values = np.array([int(value) for value in re.findall(r"\d+", colour)[:3]]) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]


@in_a_browser
@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [320, 360, 1280])
def test_light_and_dark_narrow_and_wide_all_is_in_sight_and_legible(page, dark, width):
    page.look(width, 800, dark)
    page.stroke(oval(page.box(".paper")))
    page.wait(ANSWERED)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    style = "getComputedStyle(document.querySelector('{}')).{}"
    ground = luminance(page.evaluate(style.format("body", "backgroundColor")))
    assert (ground < 0.1) == dark
    for selector in ("h1", "header p", ".best", ".verdict", ".fault", "button", ".share", ".time"):
        tone = luminance(page.evaluate(style.format(selector, "color")))
        lighter, darker = max(tone, ground), min(tone, ground)
        assert (lighter + 0.05) / (darker + 0.05) >= 4.5, selector
    left, top, side, height = page.box(".paper")
    assert side == pytest.approx(height, abs=1)
    assert left >= 0
    assert left + side <= width
    assert top + height < 800
    left, top, _, height = page.box(".best")
    assert top + height < 800, "the answer is seen where one draws"


@in_a_browser
def test_other_networks_take_pictures_and_hostile_names_stay_names(browser, colours, tmp_path):
    path, _, names = colours
    picture = np.random.default_rng(2).integers(0, 256, (4, 5, 3), np.uint8)
    (tmp_path / "noise.png").write_bytes(encoded(picture))
    browser.faults.clear()
    with served(path) as server:
        browser.open(f"http://127.0.0.1:{server.server_port}/")
        assert browser.evaluate("document.querySelector('.paper')") is None
        browser.drop(300, 300, tmp_path / "noise.png")
        browser.wait(ANSWERED)
        shown = texts(browser, "tbody th")
        assert text(browser, ".best") == shown[0]
        assert len(shown) == 12
        assert {*shown} < {*names}
        colour = browser.evaluate(
            "Array.from(document.querySelector('.seen').getContext('2d').getImageData(0, 0, 5, 4)"
            ".data)"
        )
        np.testing.assert_array_equal(np.array(colour).reshape(4, 5, 4)[..., :3], picture)
        assert browser.evaluate("document.images.length") == 1
    assert browser.faults == []


@in_a_browser
def test_a_demo_that_has_ended_is_told_on_the_page(browser, linear):
    with serving(linear) as address:
        browser.open(address)
    browser.stroke(oval(browser.box(".paper")))
    browser.wait("document.querySelector('[role=alert]').textContent.includes('not answer')")


@in_a_browser
def test_the_readmes_command_draws_on_what_was_exported(browser, trained, monkeypatch):
    monkeypatch.chdir(trained.parent)  # where jax_mnist is
    words = shlex.split(COMMAND)
    with started(ROOT / words[1], *words[2:], "--port", 0, "--no-browser") as (_, address):
        browser.open(address)
        browser.stroke(line(browser.box(".paper")))
        browser.wait(ANSWERED)
        assert text(browser, ".best") == "1"
