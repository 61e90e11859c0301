"""The page of demo.py, drawn on in a browser."""

import gzip
import json
import re
import shlex
import time

import numpy as np
import pytest
from PIL import Image

import train
from benchmarks.browser import BROWSER, Browser
from benchmarks.demo import oval, serving
from inference import convert_tflite
from inference.serving.page import LARGEST_UPLOAD
from tests.helpers.demo import encoded, served, started
from tests.helpers.project import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMAND = re.search(r"^python inference/demo\.py.*$", README, re.MULTILINE)[0]
ANSWERED = "performance.getEntriesByName('answer').length"
pytestmark = pytest.mark.skipif(BROWSER is None, reason="there is no Chromium on the path")


@pytest.fixture(scope="session")
def digits_export(once, mnist):
    """The export of a small network, trained for two epochs on the sample's data."""
    return once("digits_export", lambda folder: _train_and_export(folder, mnist)) / "jax_mnist"


def _train_and_export(folder, mnist):
    config = json.loads((ROOT / "config.json").read_text())
    config["model"] = {"name": "mlp", "args": {"feat_dims": [64]}}
    loaders = config["data_loader"]
    loaders["train"]["args"]["dataset"]["args"]["root"] = str(ROOT / "data")
    loaders["test"]["args"]["dataset"]["args"]["root"] = str(mnist)  # a few are checked quickly
    loaders["test"]["args"]["batch_size"] = 300
    config["training"] |= {"epochs": 2, "save_dir": str(folder / "saved")}
    (folder / "config.json").write_text(json.dumps(config))
    assert train.main(["-c", str(folder / "config.json")]) == 0
    (run,) = (folder / "saved").glob("*/*")
    arguments = ["--name", "jax_mnist", "-w", str(run), "--into", str(folder)]
    assert convert_tflite.main([*arguments, "--limit", "float32.agreement=0.99"]) == 0


@pytest.fixture(scope="module")
def browser():
    with Browser() as page:
        yield page


@pytest.fixture(scope="module")
def address(digits_export):
    with served(digits_export) as server:
        yield f"http://127.0.0.1:{server.server_port}/"


@pytest.fixture
def page(browser, address):
    """The demo of the trained network, freshly loaded; an error in the page fails the test."""
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


@pytest.mark.parametrize(("draw", "digit"), [(line, "1"), (oval, "0")])
def test_both_runtimes_read_a_digit_that_is_drawn(page, draw, digit):
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


def test_the_page_shows_the_image_that_the_network_sees(page):
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


def test_the_answer_is_shown_during_a_stroke_and_announced_at_its_end(page):
    points = line(page.box(".paper"))
    page._mouse("mousePressed", *points[0], button="left", clickCount=1)
    for point in points[1:]:
        page._mouse("mouseMoved", *point, button="left")
    page.wait("document.querySelector('.best').textContent === '1'")
    assert text(page, "[role=status]") == ""
    page._mouse("mouseReleased", *points[-1], button="left", clickCount=1)
    page.wait("document.querySelector('[role=status]').textContent.startsWith('1, ')")


@pytest.mark.parametrize("how", ["button", "key"])
def test_clearing_leaves_an_empty_sheet_even_before_all_answers_arrive(page, how):
    empty = texts(page, ".share")
    page.stroke(oval(page.box(".paper")))
    page.click(".clear") if how == "button" else page.press("Escape")
    time.sleep(0.3)
    assert text(page, ".best") == text(page, "[role=status]") == ""
    assert texts(page, ".share") == empty == ["–"] * 20
    page.stroke(line(page.box(".paper")))
    page.wait("document.querySelector('[role=status]').textContent.startsWith('1, ')")


@pytest.mark.parametrize("how", ["chosen", "dropped"])
def test_an_image_is_answered_and_shown_and_drawing_starts_a_new_sheet(
    page, how, mnist_images, tmp_path
):
    labels = gzip.decompress((ROOT / "data/t10k-labels-idx1-ubyte.gz").read_bytes())[8:]
    Image.fromarray(mnist_images[0]).resize((280, 280)).save(tmp_path / "seven.png")
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


def test_bad_images_are_reported_in_an_alert(page, mnist_images, tmp_path):
    (tmp_path / "letter.png").write_text("Dear Sir or Madam")
    page.choose("input[type=file]", tmp_path / "letter.png")
    page.wait("document.querySelector('[role=alert]').textContent.includes('cannot be read')")
    assert text(page, "[role=alert]").startswith("letter.png: ")
    with open(tmp_path / "film.png", "wb") as file:
        file.truncate(LARGEST_UPLOAD + 2**20)
    page.choose("input[type=file]", tmp_path / "film.png")
    assert text(page, "[role=alert]") == "film.png has 17.0 MiB; at most 16 are taken."
    for name in ("one.png", "two.png"):
        (tmp_path / name).write_bytes(encoded(mnist_images[0]))
    page.drop(600, 400, tmp_path / "one.png", tmp_path / "two.png")
    page.wait(ANSWERED)
    assert text(page, "[role=alert]") == "Of 2 files only one.png was taken."
    page.stroke(oval(page.box(".paper")))
    page.wait("document.querySelector('[role=status]').textContent.startsWith('0, ')")
    assert text(page, "[role=alert]") == ""


def test_the_camera_is_answered_until_it_is_cleared(page):
    page.click(".camera")
    page.wait("document.querySelector('.best').textContent || find('[role=alert]').textContent")
    assert page.evaluate("document.querySelector('video').videoWidth") > 0
    page.press("Escape")
    assert page.evaluate("document.querySelector('video').srcObject") is None
    assert text(page, ".best") == text(page, "[role=alert]") == ""


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


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [320, 360, 1280])
def test_everything_is_visible_and_legible_in_light_and_dark_narrow_and_wide(page, dark, width):
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


def test_other_networks_take_images_and_hostile_names_stay_text(browser, colour_export, tmp_path):
    path, _, names = colour_export
    image = np.random.default_rng(2).integers(0, 256, (4, 5, 3), np.uint8)
    (tmp_path / "noise.png").write_bytes(encoded(image))
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
        np.testing.assert_array_equal(np.array(colour).reshape(4, 5, 4)[..., :3], image)
        assert browser.evaluate("document.images.length") == 1
    assert browser.faults == []


def test_the_page_reports_a_demo_that_has_ended(browser, linear_export):
    with serving(linear_export) as address:
        browser.open(address)
    browser.stroke(oval(browser.box(".paper")))
    browser.wait("document.querySelector('[role=alert]').textContent.includes('not answer')")


def test_the_readmes_command_draws_on_what_was_exported(browser, digits_export, monkeypatch):
    monkeypatch.chdir(digits_export.parent)  # where jax_mnist is
    words = shlex.split(COMMAND)
    with started(ROOT / words[1], *words[2:], "--port", 0, "--no-browser") as (_, address):
        browser.open(address)
        browser.stroke(line(browser.box(".paper")))
        browser.wait(ANSWERED)
        assert text(browser, ".best") == "1"
