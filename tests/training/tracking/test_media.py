"""Images, texts and histograms: what is one, how they reach trackers, and the run folder's copy."""

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from tests.helpers.tracking import recorded
from training.tracking.media import KEPT, LONGEST_TEXT, Media, as_image, as_values, read_media
from utils import UserError

RECORDER = "tests.helpers.tracking:Recorder"
RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 1), (1, 4, 5), (4, 5, 3), (3, 4, 5), (4, 5, 4)])
def test_an_image_reaches_trackers_as_height_width_channels(start, tmp_path, shape):
    image = RANDOM.integers(0, 256, shape, np.uint8)
    with start(RECORDER) as trackers:
        trackers.image(3, "filters", image)
    (call,) = [call for call in recorded(tmp_path / "run") if call[0] == "image"]
    assert call[1:3] == [3, "filters"]
    expected = np.moveaxis(image, 0, -1) if shape[1:] == (4, 5) else image.reshape(4, 5, -1)
    np.testing.assert_array_equal(call[3], expected)
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == b""


@pytest.mark.parametrize("dtype", [np.float64, np.float16, jnp.bfloat16, jnp.float32])
def test_floats_from_0_to_1_are_black_to_white(dtype):
    found = as_image(np.array([[0, 0.5, 1]]).astype(dtype), "x")
    assert found.dtype == np.uint8
    assert found.ravel().tolist() == [0, 128, 255]
    assert as_image([[True, False]], "a mask").ravel().tolist() == [255, 0]


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.full((4, 5), 1.5), "got floats from 1.5 to 1.5; expected .*floats from 0 to 1"),
        (np.full((4, 5), np.nan), "got floats from nan"),
        (np.full((4, 5), -0.1, np.float16), "got floats from -0.1"),
        (np.zeros((4, 5), np.int32), "got int32; expected .* uint8"),
        (np.zeros((5, 5, 2), np.uint8), r"got the shape \(5, 5, 2\); expected"),
        (np.zeros((8, 5, 5, 3), np.uint8), r".*of a batch, log one by one: images\[0\]"),
        (np.zeros((0, 5), np.uint8), r"got the shape \(0, 5\)"),
        (np.zeros((5000, 2), np.uint8), "got 5000 x 2 pixels"),
        (np.uint8(0), r"got the shape \(\)"),
        ("a text", "got the shape"),
    ],
)
def test_what_is_no_image_is_refused(start, array, words):
    with start() as trackers, pytest.raises(UserError, match=f"image 'x': {words}"):
        trackers.image(1, "x", array)


def test_what_is_no_text_no_histogram_or_no_name_is_refused(start):
    with start() as trackers:
        with pytest.raises(UserError, match="text 'x': got bytes; expected a str"):
            trackers.text(1, "x", b"")
        with pytest.raises(UserError, match="histogram 'x': got <U1"):
            trackers.histogram(1, "x", ["a"])
        for name in ("", "a\nb", 3, "x" * 300):
            with pytest.raises(UserError, match=r"text: its name is .*; expected a text"):
                trackers.text(1, name, "words")


def test_a_histogram_is_of_the_finite_values_and_says_so_once(start, tmp_path, caplog):
    with start(RECORDER) as trackers:
        for values in ([np.nan, 1, np.inf], [np.nan], np.ones((2, 2), np.int8)):
            trackers.histogram(1, "weights", values)
    found = [call[3] for call in recorded(tmp_path / "run") if call[0] == "histogram"]
    assert found == [[1.0], [1.0] * 4]
    assert caplog.messages == ["histogram 'weights': 2 of 3 values are not finite and are left out"]


def test_the_run_folder_keeps_images_as_png_and_texts_and_histograms_as_lines(start, tmp_path):
    colour, grey = (RANDOM.integers(0, 256, shape, np.uint8) for shape in ((6, 5, 3), (6, 5)))
    values = RANDOM.normal(size=1000)
    names = ["masks", "a/b", "../a", "ünï", "a_b"]
    with start() as trackers:
        for name in names:
            trackers.image(7, name, colour)
        trackers.image(8, "grey", grey)
        trackers.text(8, "sample", "x" * (LONGEST_TEXT + 1))
        trackers.histogram(8, "weights", values)
    folder = tmp_path / "run"
    *images, text, histogram = read_media(folder)
    assert [line["name"] for line in images] == [*names, "grey"]
    assert len({line["file"] for line in images}) == 6
    for line, image in zip(images, [colour] * 5 + [grey], strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(folder / line["file"])), image)
        assert (folder / line["file"]).resolve().is_relative_to(folder / "images")
    assert (text["step"], text["text"]) == (8, "x" * LONGEST_TEXT)
    counts, edges = np.histogram(values, 30)
    assert histogram["counts"] == counts.tolist()
    np.testing.assert_allclose(histogram["edges"], edges)


def test_the_last_images_of_a_name_are_kept(tmp_path):
    media = Media(tmp_path)
    for step in range(KEPT + 3):
        media.image(step, "x", np.zeros((2, 2, 1), np.uint8))
    media.image(KEPT + 2, "x", np.ones((2, 2, 1), np.uint8))  # again
    media.close()
    files = sorted(path.stem for path in (tmp_path / "images" / "x").iterdir())
    assert files == [f"{step:09d}" for step in range(3, KEPT + 3)]


def test_what_a_killed_run_kept_after_its_checkpoint_is_removed(start, tmp_path):
    image = np.zeros((2, 2), np.uint8)
    with start() as trackers:
        trackers.image(1, "x", image)
        sizes = trackers.sizes()
        trackers.image(2, "x", image)
        trackers.text(2, "y", "later")
    with start(sizes=sizes):
        pass
    assert [(line["step"], line["name"]) for line in read_media(tmp_path / "run")] == [(1, "x")]
    assert [path.name for path in (tmp_path / "run").glob("images/*/*")] == ["000000001.png"]
    with start(sizes={}):
        pass
    assert not list((tmp_path / "run").glob("images/*/*"))


def test_a_full_disk_costs_images_alone_and_one_warning(start, tmp_path, caplog):
    with start() as trackers:
        (tmp_path / "run" / "images").write_text("no folder can be made here")
        for step in range(3):
            trackers.log({"step": step, "loss": 0.5})
            trackers.image(step, "x", np.zeros((2, 2), np.uint8))
    assert len(caplog.records) == 1
    assert "media.jsonl: the tracker Media failed: " in caplog.text
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 3


def test_lines_of_a_foreign_folder_name_no_file_outside_it(tmp_path):
    Image.new("L", (2, 2)).save(tmp_path / "1.png")
    run = tmp_path / "run"
    (run / "images" / "x").mkdir(parents=True)
    files = ["../1.png", "images/../../1.png", "/etc/passwd", "images/x/2.png", 3]
    lines = [f'{{"kind": "image", "name": "x", "step": 1, "file": {file!r}}}' for file in files]
    (run / "media.jsonl").write_text("\n".join(lines).replace("'", '"'))
    assert read_media(run) == []


def test_values_of_any_numbers_are_float64():
    assert as_values(jnp.ones((2, 3), jnp.bfloat16), "x").tolist() == [1.0] * 6
