"""The page without a server, in a browser: its pixels and probabilities are predict.py's."""

import base64
import functools
import http.server
import json
import math
import threading

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from benchmarks.browser import BROWSER, Browser
from benchmarks.demo import oval
from inference import demo
from inference.serving import page as page_module
from inference.serving import static
from inference.serving.classifier import load
from inference.serving.drawing import fit
from tests.helpers.exports import INSIDE, OUTSIDE, write_onnx

ANSWERED = "kept.length"
KEEP = (  # what the page shows is kept as well
    "globalThis.kept = []; globalThis.shows = show;"
    "show = (answer, since) => { kept.push(answer); shows(answer, since); };"
)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="there is no Chromium on the path")


@pytest.fixture(scope="module")
def networks(weights, tmp_path_factory):
    """{name: path} of ONNX files: for grey and colour, preprocessing in the file and outside."""
    folder, random = tmp_path_factory.mktemp("networks"), np.random.default_rng(3)

    def write(name, preprocess, size, classes=10, **more):
        matrix = random.normal(size=(math.prod(size), classes)).astype(np.float32) / 100
        path = folder / f"{name}.onnx"
        names = [f"class {index}" for index in range(classes)]
        write_onnx(path, (matrix, np.zeros(classes)), preprocess, size=size, classes=names, **more)
        return path

    return {
        "grey": write("grey", INSIDE, (1, 28, 28)),
        "outside": write("outside", OUTSIDE, (1, 28, 28), batch=3),
        "colour": write("colour", INSIDE, (3, 32, 48), classes=20),
        "photo": write("photo", INSIDE, (1, 96, 80)),
    }


@pytest.fixture(scope="module")
def site(networks, node_modules, tmp_path_factory):
    """The address of a server of files that has the pages of all networks below a path."""
    root = tmp_path_factory.mktemp("site")
    for name, path in networks.items():
        command = ["--name", str(path), "--static", str(root / "below" / name)]
        assert demo.main([*command, "--ort", str(node_modules / "onnxruntime-web/dist")]) == 0
    handler = functools.partial(Quiet, directory=root)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/below"
        server.shutdown()
        thread.join()


class Quiet(http.server.SimpleHTTPRequestHandler):
    """A server of files that does not log."""

    def log_message(self, *_):
        """Does not log."""


@pytest.fixture(scope="module")
def browser():
    with Browser() as page:
        yield page


@pytest.fixture
def page_of(browser, site):
    """`page_of(name)` opens the page of a network; an error in a page fails the test."""
    browser.faults.clear()

    def page_of(name):
        browser.look(1280, 800)
        browser.open(f"{site}/{name}/")
        browser.evaluate(KEEP)
        return browser

    yield page_of
    assert browser.faults == []


def shown(page, *paths):
    """What the page answers to a picture that is chosen: (pixels, answer)."""
    page.evaluate("kept.length = 0")
    page.choose("input[type=file]", *paths)
    page.wait(f"{ANSWERED} || document.querySelector('[role=alert]').textContent")
    return last(page)


def last(page):
    found = page.evaluate("JSON.stringify({...kept.at(-1), pixels: [...kept.at(-1).pixels]})")
    answer = json.loads(found)
    return np.array(answer["pixels"], np.uint8), answer


def photo(height=110, width=150):
    """Colours that change slowly, as in a photograph, and grain."""
    rows, columns = np.mgrid[:height, :width]
    planes = (np.sin(columns / 37 + rows / 91), np.cos(rows / 23), np.sin(columns * rows / 1900))
    grain = np.random.default_rng(1).normal(0, 9, (height, width, 3))
    colours = np.clip(127 + 100 * np.stack(planes, -1) + grain, 0, 255)
    return Image.fromarray(colours.astype(np.uint8))


def turned():
    """EXIF data of a camera that was held upright."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    return exif


def pictures(digits):
    """{name: (image, options)}: a digit in many sizes and modes, and noise that hides nothing."""
    random = np.random.default_rng(0)
    digit = Image.fromarray(digits[0])
    noise = Image.fromarray(random.integers(0, 256, (61, 83, 3), np.uint8))
    ink = Image.new("RGBA", (70, 90))
    ink.putalpha(Image.fromarray(random.integers(0, 256, (90, 70), np.uint8)))
    found = {f"digit {side}.png": digit.resize((side, side)) for side in (28, 29, 56, 200, 999)}
    found |= {f"wide {size}.png": digit.resize(size) for size in ((300, 40), (20, 280), (1, 1))}
    found |= {
        "colour.png": ImageOps.colorize(digit.resize((140, 140)), "navy", "yellow"),
        "noise.png": noise, "noise.bmp": noise, "noise.gif": noise.convert("P"),
        "large noise.png": noise.resize((2000, 1300), Image.Resampling.NEAREST),
        "palette.png": noise.quantize(200), "bits.png": noise.convert("1"),
        "deep.png": Image.fromarray(random.integers(0, 2**16, (50, 60), np.uint16)),
        "ink.png": ink, "grey alpha.png": ink.convert("LA"),
    }  # fmt: skip
    return found


@pytest.mark.parametrize("name", ["grey", "outside", "colour", "photo"])
def test_pixels_and_probabilities_are_those_of_predict_py(
    name, page_of, networks, mnist_images, tmp_path
):
    page, classifier = page_of(name), load(networks[name])
    for file, image in pictures(mnist_images).items():
        image.save(tmp_path / file)
        pixels, answer = shown(page, tmp_path / file)
        expected = classifier.read(tmp_path / file)
        np.testing.assert_array_equal(pixels, expected.reshape(-1), file)
        batch = np.repeat(expected[None], classifier.batch or 1, axis=0)
        wanted = classifier.probabilities(classifier.run(batch)[0])
        by_class = dict(zip(answer["classes"], answer["answers"][0]["shown"], strict=True))
        for index in np.argsort(-wanted)[:10]:
            assert by_class[classifier.classes[index]] == pytest.approx(wanted[index], abs=1e-4)
        assert answer["answers"][0]["best"] == classifier.classes[wanted.argmax()]
        assert "this browser" not in answer["prepared"], file


@pytest.mark.parametrize(
    ("file", "options", "most"),
    [
        ("small.jpg", {}, 0),
        ("turned.jpg", {"exif": turned()}, 0),
        ("turned.png", {"exif": turned()}, 0),
        ("small.webp", {}, 0),
        ("large.jpg", {"size": (900, 700)}, 4),  # Pillow decodes it at a quarter
    ],
)
def test_compressed_and_turned_pictures_are_read_as_by_predict_py(
    file, options, most, page_of, networks, tmp_path
):
    image = photo(*options.pop("size", (110, 150)))
    image.save(tmp_path / file, **options)
    pixels, answer = shown(page_of("colour"), tmp_path / file)
    expected = load(networks["colour"]).read(tmp_path / file).reshape(-1)
    assert np.abs(pixels.astype(int) - expected).max() <= most
    assert ("this browser" in answer["prepared"]) != file.endswith("png")


def test_what_cannot_be_read_as_by_predict_py_is_refused_in_words(page_of, tmp_path):
    page = page_of("grey")
    photo().save(tmp_path / "turned.webp", exif=turned())
    (tmp_path / "letter.png").write_text("Dear Sir or Madam")
    Image.new("1", (9000, 2000)).save(tmp_path / "huge.png")
    for file, words in (
        ("turned.webp", "turned.webp: a WebP picture with EXIF data"),
        ("letter.png", "letter.png: cannot be read as a picture by this browser"),
        ("huge.png", "huge.png: too large (9000 × 2000); expected at most 10,000,000 pixels"),
    ):
        page.choose("input[type=file]", tmp_path / file)
        page.wait(f"document.querySelector('[role=alert]').textContent.includes({words!r})")
    assert page.evaluate(ANSWERED) == 0


def test_a_drawing_is_fitted_as_by_the_demo(page_of, networks):
    page, classifier = page_of("grey"), load(networks["grey"])
    left, top, width, height = page.box(".paper")
    zigzag = [(left + width * x, top + height * y) for x, y in ((0.1, 0.2), (0.7, 0.3), (0.4, 0.5))]
    for points in (oval(page.box(".paper")), zigzag, zigzag[:2]):
        page.press("Escape")
        page.evaluate("kept.length = 0")
        page.stroke(points)
        page.wait("document.querySelector('[role=status]').textContent")
        side = drawn(page)
        pixels, answer = last(page)
        np.testing.assert_array_equal(pixels.reshape(28, 28), fit(side, 28))
        best = classifier.probabilities(classifier.run(pixels.reshape(1, 1, 28, 28))[0]).max()
        assert answer["answers"][0]["probability"] == pytest.approx(best, abs=1e-4)
        assert "fitted and centred" in answer["prepared"]


def drawn(page):
    """The ink on the paper, as the page sends it to a server."""
    return np.array(page.evaluate("[...ink()]"), np.uint8).reshape(page_module.SIDE, -1)


def test_a_drawing_is_found_in_a_picture_as_by_the_demo(page_of, networks, mnist_images, tmp_path):
    page, served = page_of("grey"), page_module.Demo(str(networks["grey"]))
    page.click(".trace")
    digit = ImageOps.invert(Image.fromarray(mnist_images[0]).resize((90, 120)))
    paper = Image.new("L", (300, 217), 255)
    paper.paste(digit, (150, 60))
    for name, image in (("paper.png", paper), ("small.png", paper.resize((61, 77)))):
        image.save(tmp_path / name)
        pixels, answer = shown(page, tmp_path / name)
        wanted = served.answer_image((tmp_path / name).read_bytes(), name)
        assert answer["prepared"] == wanted["prepared"]
        expected = np.frombuffer(base64.b64decode(wanted["pixels"]), np.uint8)
        np.testing.assert_array_equal(pixels, expected)
    page.evaluate("kept.length = 0")
    page.click(".trace")
    page.wait(ANSWERED)
    assert last(page)[1]["prepared"] == "resized from 61 × 77", "the same picture, asked again"


def test_the_camera_is_answered_until_it_is_stopped(page_of):
    page = page_of("colour")
    page.click(".camera")
    page.wait(f"{ANSWERED} > 2")
    assert "resized from" in last(page)[1]["prepared"]
    assert page.evaluate("document.querySelector('video').videoWidth") > 0
    page.click(".camera")
    assert page.evaluate("document.querySelector('video').srcObject") is None
    assert page.evaluate("document.querySelector('.best').textContent") == ""


def test_the_page_loads_nothing_from_elsewhere_and_its_policy_forbids_it(page_of, site):
    page = page_of("grey")
    page.wait("document.readyState === 'complete'")
    page.evaluate("starting.then(() => 1)")
    loaded = page.evaluate("performance.getEntriesByType('resource').map(one => one.name)")
    assert {name.rsplit("/", 1)[0] for name in loaded if name != "data:,"} == {f"{site}/grey"}
    policy = "document.querySelector('meta[http-equiv=Content-Security-Policy]').content"
    assert page.evaluate(policy).startswith("default-src 'none'; ")
    with pytest.raises(RuntimeError, match="Failed to fetch"):
        page.evaluate("fetch('http://localhost:1/')")
    assert any("violates" in fault for fault in page.faults)
    page.faults.clear()


def test_npm_fetches_the_same_runtime(node_modules, tmp_path):
    fetched = static._fetch(tmp_path)
    for name in static.RUNTIME.values():
        installed = node_modules / "onnxruntime-web/dist" / name
        assert (fetched / name).read_bytes() == installed.read_bytes()


def test_folders_and_networks_that_do_not_fit_are_refused(
    networks, linear_export, tmp_path, capsys, monkeypatch
):
    def refusal(name, folder, *more):
        assert demo.main(["--name", str(name), "--static", str(folder), *map(str, more)]) == 1
        return capsys.readouterr().err

    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("all of it")
    assert "mine: holds something else" in refusal(networks["grey"], tmp_path / "mine")
    assert "takes the .onnx file" in refusal(linear_export / "linear.tflite", tmp_path / "new")
    nothing = refusal(networks["grey"], tmp_path / "new", "--ort", tmp_path)
    assert "no ort.wasm.min.js, ort-wasm-simd-threaded.mjs" in nothing
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "npm, which fetches the runtime, is not" in refusal(networks["grey"], tmp_path / "new")
    assert not (tmp_path / "new").exists()
