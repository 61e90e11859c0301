"""Reads HTML pages with a browser, or, without one, with a parser."""

import base64
import io
import json
import re
import shutil
import subprocess
import tempfile
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
from PIL import Image

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)
HOSTILE = "</style><script>document.title = 'owned'</script><img src='https://evil.test/x.png'>"
VOID = {"meta", "link", "img", "br", "wbr", "hr", "input"}


def write_lines(path, lines):
    """Writes a file of JSON lines."""
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def read_lines(path):
    """Returns the objects of a file of JSON lines."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def epochs_of(folder):
    """Returns the lines of metrics.jsonl that are of an epoch's end."""
    return [line for line in read_lines(folder / "metrics.jsonl") if "batch" not in line]


class TreeParser(HTMLParser):
    """Reads a page as a tree; fails if its tags do not nest."""

    def __init__(self, html):
        super().__init__()
        self.builder, self.open = ElementTree.TreeBuilder(), []
        self.feed(html)
        self.close()
        assert self.open == []
        self.tree = self.builder.close()

    def handle_starttag(self, tag, attributes):
        self.builder.start(tag, {name: value or "" for name, value in attributes})
        self.open.append(tag)
        if tag in VOID:
            self.handle_endtag(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        self.builder.end(tag)

    def handle_data(self, data):
        if self.open:
            self.builder.data(data)


def page(path):
    """Returns the file as a tree."""
    return TreeParser(path.read_text(encoding="utf-8")).tree


def run_browser(path, *options):
    """Opens the file in a headless browser without a network; returns what it prints."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        return subprocess.run(
            [
                BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
                "--disable-background-networking", "--disable-component-update", "--disable-sync",
                "--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={profile}",
                *options, path.as_uri(),
            ],
            capture_output=True, text=True, encoding="utf-8", timeout=120,
        ).stdout  # fmt: skip


def browsed(path):
    """Returns the tree that a browser makes of the file; without a browser, the parser's."""
    return TreeParser(run_browser(path, "--dump-dom")).tree if BROWSER else page(path)


def text(element):
    """Returns the text of an element, with single spaces."""
    return " ".join("".join(element.itertext()).split())


def texts(tree, path):
    """Returns the text of every element that a path finds."""
    return [text(element) for element in tree.findall(path)]


def sections(path):
    """Returns the headings of a page's sections."""
    return texts(page(path), ".//h2")


def table_of(tree):
    """Returns the exact values of the table of epochs: [{"epoch": 1, "test loss": 0.3}, ...]."""
    table = tree.find(".//table[@class='numbers']")
    rows = table.findall("tbody/tr")
    values = [[float(cell.get("value", "nan")) for cell in row.iter("data")] for row in rows]
    return [dict(zip(texts(table, "thead/tr/th"), row, strict=True)) for row in values]


def rows_of(tree, heading):
    """Returns {name: [cell of each run]} of a section's table."""
    section = next(one for one in tree.iter("section") if text(one.find("h2")) == heading)
    return {text(row.find("th")): texts(row, "td") for row in section.findall(".//tbody/tr")}


def matrix_of(tree):
    """Returns the counts of the confusion matrix (empty is 0), the recalls and the precisions."""
    table = tree.find(".//table[@aria-label='confusion matrix']")
    rows = [texts(row, "td") for row in table.findall("tbody/tr")]
    counts = np.array([[int(cell or 0) for cell in row[:-1]] for row in rows])
    return counts, [row[-1] for row in rows], texts(table, "tfoot/tr/td")[:-1]


def chart_of(tree, name):
    """Returns the figure element of a metric."""
    return next(
        figure
        for figure in tree.findall(".//figure[@class='chart']")
        if text(figure.find("figcaption/h3")).removesuffix(" log scale") == name
    )


def points_of(chart, line, log=False):
    """Returns the points of a chart's line as numbers, by the labels of its axes."""

    def axis(kind, side, scale):
        ticks = [
            (float(re.search(side + r":([\d.-]+)%", tick.get("style"))[1]), text(tick))
            for tick in chart.iter("span")
            if tick.get("class") == kind
        ]
        percents, values = zip(*ticks, strict=True)
        values = scale(np.array([float(value.replace(",", "")) for value in values]))
        return np.poly1d(np.polyfit(percents, values, 1))

    path = next(path for path in chart.iter("path") if path.get("class") == line)
    points = np.array(re.findall(r"([\d.-]+) ([\d.-]+)", path.get("d")), float)
    x = axis("x", "left", np.asarray)(points[:, 0])
    y = axis("y", "top", np.log10 if log else np.asarray)(points[:, 1])
    return x, 10**y if log else y


def pixels_of(source):
    """Returns the pixels of an image's data URI, as an array."""
    image = Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2])))
    return np.asarray(image)
