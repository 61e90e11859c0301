"""What callbacks recorded, in the report."""

import base64
import io
import re

import numpy as np
from PIL import Image

from training.report.page import write_report
from training.tracking.media import Media


def test_the_report_shows_recorded_images_and_texts_as_they_are(tmp_path):
    media, images = (
        Media(tmp_path),
        np.random.default_rng(0).integers(0, 256, (9, 6, 5, 3), np.uint8),
    )
    for step, image in enumerate(images):
        media.image(step, "val/<masks>", image)
        media.text(step, "sample", f"step {step}: <b> & \x1b")
    media.histogram(1, "weights", np.arange(4.0))
    media.close()
    with open(tmp_path / "media.jsonl", "a") as file:
        file.write(
            '{"kind": "text", "name": 3}\n{"kind": "text", "name": "x", "step": 1, "text": 2}\n'
        )
    (tmp_path / "images").joinpath("broken").mkdir()
    html = write_report(tmp_path).read_text()
    section = html.partition("<h2>Recorded</h2>")[2].partition("</section>")[0]
    assert "<h3>val/&lt;masks&gt;</h3>" in section
    assert section.count("<pre>") == 1
    assert "step 8: &lt;b&gt; &amp; " in section
    found = re.findall(r"data:image/png;base64,([^\"']+)", section)
    pixels = [np.asarray(Image.open(io.BytesIO(base64.b64decode(one)))) for one in found]
    np.testing.assert_array_equal(pixels, images[[0, 4, 8]])


def test_a_report_without_anything_recorded_has_no_such_section(tmp_path):
    assert "Recorded" not in write_report(tmp_path).read_text()


def test_an_image_that_is_damaged_is_left_out(tmp_path):
    media = Media(tmp_path)
    media.image(1, "x", np.zeros((2, 2, 1), np.uint8))
    media.close()
    (tmp_path / "images" / "x" / "000000001.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    assert "<h3>x</h3>" in write_report(tmp_path).read_text()
