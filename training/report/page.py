"""Writes report.html: a run on one page, in one file that needs no network and no script."""

import math
import statistics
from collections.abc import Sequence
from pathlib import Path

from training.common.files import atomic_write_text
from training.common.records import STD, flatten, has_results, read_lines, read_record
from training.engine.evaluation import Predictions
from training.engine.splits import leakage
from training.report.charts import RATES, charts, lower_is_better, metrics_of
from training.report.classification import summarize
from training.report.compare import RECORDS
from training.report.gallery import Gallery
from training.report.recorded import recorded
from training.report.render import format_duration, format_number, render
from training.report.sections import Section

TABLE_ROWS = 300  # of the table of epochs
NOT_SHOWN = ("config", "code", "data", "uncommitted")  # of environment.json


def write_report(
    run: Path,
    *,
    predictions: Predictions | None = None,
    gallery: Gallery | None = None,
    sections: Sequence[Section] = (),
    title: str | None = None,
) -> Path:
    """Writes the report of a run into its folder, from whatever the folder has.

    Args:
        run: the run's folder. Read, where they exist: metrics.jsonl, timing.jsonl, config.json
            and environment.json (versions and devices; "parameters" in it is the number of the
            network's parameters).
        predictions: adds the confusion matrix, the most confident mistakes, the calibration and
            samples of each class.
        gallery: adds augmented images, and the first layer's filters.
        sections: adds what functions show of test examples.
        title: the heading; None: the config's title, else the folder's name.

    Returns:
        The path of the report, which is written atomically.

    Raises:
        ValueError: the shapes of the predictions do not match.
    """
    run = Path(run)
    name = run.resolve().name
    lines, timing = read_lines(run / "metrics.jsonl"), read_lines(run / "timing.jsonl")
    config, environment = (read_record(run / file) for file in RECORDS)
    packages, parameters = environment.pop("packages", {}), environment.pop("parameters", None)
    packages = packages if isinstance(packages, dict) else {}
    training = config.get("training")
    monitor = training.get("monitor") if isinstance(training, dict) else None
    environment = {key: value for key, value in environment.items() if key not in NOT_SHOWN}
    table = _table([*lines, *timing])
    html = render(
        "report.html.jinja",
        title=title or str(config.get("title") or name),
        run=name,
        headline=list(_headline(table, config, parameters)),
        charts=charts(lines),
        table=table,
        leakage=leakage(monitor),
        classification=predictions and summarize(predictions),
        gallery=gallery or Gallery([], None),
        recorded=recorded(run),
        sections=sections,
        environment={key.replace("_", " "): text for key, text in flatten(environment)},
        packages=packages,
        config=dict(flatten(config)),
    )
    path = run / "report.html"
    atomic_write_text(path, html)
    return path


def _table(lines):
    """The metrics of each epoch: the rows, by epoch, and the keys they have."""
    epochs = {}
    for line in lines:
        if line.get("epoch") and has_results(line):
            epochs.setdefault(line["epoch"], {}).update(metrics_of(line))
    rows = [{"epoch": epoch, **epochs[epoch]} for epoch in sorted(epochs)]
    keys = list(dict.fromkeys(key for row in rows for key in row))
    return {"keys": keys, "rows": rows, "every": -(-len(rows) // TABLE_ROWS)}


def _headline(table, config, parameters):
    """Yields the most important numbers, as (name, value, note)."""
    rows, training = table["rows"], config.get("training")
    training = training if isinstance(training, dict) else {}
    sense, _, monitored = str(training.get("monitor")).partition(" ")
    for key in _headline_keys(table["keys"]):
        values = [(row[key], row["epoch"]) for row in rows if key in row]
        finite = [pair for pair in values if math.isfinite(pair[0])]
        lower = sense == "min" if key == monitored else lower_is_better(key)
        best = (min if lower else max)(finite, key=lambda pair: pair[0], default=None)
        note = f"best {format_number(best[0])}, epoch {best[1]}" if best else ""
        if std := rows[-1].get(key + STD):
            note = f"± {format_number(std)} over the seeds; {note}"
        yield key.removeprefix("epoch_").replace("_", " "), values[-1][0], note
    if type(parameters) is int and abs(parameters) < 2**63:  # others are no number of a run
        yield "parameters", parameters, ""
    if rows:
        planned = training.get("epochs")
        yield "epochs", rows[-1]["epoch"], f"of {planned} planned" if planned else ""
    if seconds := _finite(rows, "seconds"):
        yield "time", format_duration(sum(seconds)), f"{statistics.median(seconds):.3g} s per epoch"
    if speeds := _finite(rows, "images_per_second"):
        yield "images per second", round(statistics.median(speeds)), "median of the epochs"


def _finite(rows, key):
    return [row[key] for row in rows if math.isfinite(row.get(key, math.nan))]


def _headline_keys(keys):
    """At most four metrics of the most informative split, the losses last."""
    for prefix in ("test_", "validation_", "epoch_train_"):
        found = [key for key in keys if key.startswith(prefix) and not key.endswith((*RATES, STD))]
        if found:
            return sorted(found, key=lower_is_better)[:4]
    return []
