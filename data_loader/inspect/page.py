"""Writes the page of a data set: one file that needs no network and has no script."""

from collections import Counter
from pathlib import Path

from data_loader.inspect.findings import WRONG, class_names, suggested_normalize
from training.common.files import atomic_write_text
from utils import UserError, optional_module, printable

pixels_as = optional_module("training.report.images", "--html")
render = optional_module("training.report.render", "--html").render

SAMPLES = 12  # images of a class
CLASSES = 50  # whose samples are shown
LISTED = 8  # sizes, formats and modes


def write_page(path: str | Path, title: str, splits: list, findings: list) -> Path:
    """Writes the page; returns its path.

    Args:
        path: of the file.
        title: of the config.
        splits: what `read_split` returned, the training split first.
        findings: what `judge` returned.

    Raises:
        UserError: the file cannot be written.
    """
    names, named = class_names(splits), {split.name: split for split in splits}
    html = render(
        "page.html.jinja",
        Path(__file__).parent,
        title=title,
        headline=_headline(splits, names, findings),
        findings=[_finding(one, named) for one in findings],
        splits=[split.name for split in splits],
        classes=_bars(splits, names),
        samples=_samples(splits[0], names),
        fields=[(split.name, name, one) for split in splits for name, one in split.fields.items()],
        files=[(split.name, title, rows) for split in splits for title, rows in _files(split)],
        normalize=suggested_normalize(splits[0]),
    )
    try:
        atomic_write_text(Path(path), html)
    except OSError as error:
        raise UserError(f"--html: {printable(path)} cannot be written: {error.strerror}") from None
    return Path(path)


def _headline(splits, names, findings):
    wrong = sum(one.level == WRONG for one in findings)
    yield from ((f"{split.name} examples", split.examples, "") for split in splits)
    if names:
        yield "classes", len(names), ""
    yield "wrong", wrong, f"worth a look: {len(findings) - wrong}"


def _bars(splits, names):
    """A row for each class: its name, and the count and the share of the largest, by split."""
    counts = [Counter(split.labels.values()) for split in splits]
    largest = [max(one.values(), default=1) for one in counts]
    return [
        (name, [(one[label], one[label] / most) for one, most in zip(counts, largest, strict=True)])
        for label, name in names.items()
    ]


def _samples(split, names):
    """A row of images of each class: its name, the row and the number of images in it."""
    known = {label: [] for label in list(names)[:CLASSES]}
    for index, label in split.labels.items():
        if label in known:
            known[label].append(index)
    for label, indices in known.items():
        chosen = indices[:: max(1, len(indices) // SAMPLES)][:SAMPLES]
        images = [image for index in chosen if (image := _image(split, index))]
        if images:
            yield names[label], pixels_as.image_grid(images), len(images)


def _image(split, index):
    pixels = _input(split, index)
    return None if pixels is None else pixels_as.image_of(pixels)


def _input(split, index):
    """An example's input, read again; None where that cannot be done, or is no array."""
    try:
        inputs = split.dataset[index][0]
    except Exception:  # a data set may raise anything; a stream is not read by index
        return None
    return inputs if hasattr(inputs, "shape") else None


def _finding(finding, named):
    shown = []
    for split, index in finding.examples:
        pixels = _input(named[split], index)
        uri = None if pixels is None else pixels_as.data_uri(pixels)
        if uri:
            shown.append((uri, f"{split} {printable(Path(named[split].name_of(index)).name)}"))
    return finding.level, finding.text, shown


def _files(split):
    sizes = Counter({f"{h} × {w}": count for (h, w), count in split.sizes.items()})
    for title, counter in (
        ("formats", split.formats), ("modes", split.modes), ("height × width", sizes),
    ):  # fmt: skip
        if counter:
            more = len(counter) - LISTED
            rows = counter.most_common(LISTED)
            yield (
                title,
                rows
                + [(f"{more} more", sum(counter.values()) - sum(n for _, n in rows))] * (more > 0),
            )
