"""Writes report.html: a run on one page, in one file, that needs no network and no script.

python -m training.report RUN RUN ...              several runs on one page
python -m training.report saved/MNIST_Sample       all runs in a folder
"""

import csv
import math
import statistics
from pathlib import Path

import jinja2

from training.common.files import atomic_write_text
from training.common.records import STD, flatten, parse_record, read_lines
from training.engine.evaluation import Predictions
from training.report.calibration import diagram
from training.report.charts import RATES, charts, lower_is_better, measures
from training.report.classification import decide, judge
from training.report.gallery import Gallery

REPOSITORY = Path(__file__).resolve().parent.parent
TABLE_ROWS = 300  # of the table of epochs


def write_report(
    run: Path,
    *,
    predictions: Predictions | None = None,
    gallery: Gallery | None = None,
    title: str | None = None,
) -> Path:
    """Writes the report of a run into its folder, from whatever the folder holds.

    Args:
        run: the run's folder. Read, where they exist: metrics.jsonl, timing.jsonl, config.json
            and environment.json (what `environment` returns; a "parameters" in it is the count
            of the network's parameters).
        predictions: adds the confusion matrix, the most confident mistakes, the calibration and
            samples of each class.
        gallery: adds what augmentation does, and the first layer's filters.
        title: the heading; None stands for the config's title, else the folder's name.

    Returns:
        The path of the report, which is there whole or not at all.

    Raises:
        ValueError: the shapes of the predictions do not fit.
    """
    run = Path(run)
    name = run.resolve().name
    metrics, timing = read_lines(run / "metrics.jsonl"), read_lines(run / "timing.jsonl")
    config, surroundings = _read(run / "config.json"), _read(run / "environment.json")
    packages, parameters = surroundings.pop("packages", {}), surroundings.pop("parameters", None)
    for checksums in (
        "config",
        "code",
        "data",
        "uncommitted",
    ):  # for `training.provenance.record` alone
        surroundings.pop(checksums, None)
    table = _table([*metrics, *timing])
    html = render(
        "report.html.jinja",
        title=title or config.get("title") or name,
        run=name,
        figures=list(_figures(table, config, parameters)),
        charts=charts(metrics),
        table=table,
        judged=predictions and judge(predictions),
        gallery=gallery or Gallery([], None),
        environment={name.replace("_", " "): text for name, text in flatten(surroundings)},
        packages=packages,
        config=dict(flatten(config)),
    )
    path = run / "report.html"
    atomic_write_text(path, html)
    return path


def write_predictions(path: Path, predictions: Predictions) -> None:
    """Writes a CSV line for each example: index,target,prediction,probability,p_<class>,..."""
    chances, predicted, classes = decide(predictions)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        names = [f"p_{name}" for name in classes]
        writer.writerow(["index", "target", "prediction", "probability", *names])
        for i, (target, guess) in enumerate(zip(predictions.targets, predicted, strict=True)):
            row = [f"{chance:.6g}" for chance in chances[i]]
            writer.writerow([i, classes[target], classes[guess], row[guess], *row])


def _read(path):
    return parse_record(path.read_text(encoding="utf-8")) if path.exists() else {}


def _table(lines):
    """What was measured once per epoch: the rows, by epoch, and the keys they have."""
    epochs = {}
    for line in lines:
        if line.get("epoch") and "batch" not in line:
            epochs.setdefault(line["epoch"], {}).update(measures(line))
    rows = [{"epoch": epoch, **epochs[epoch]} for epoch in sorted(epochs)]
    keys = list(dict.fromkeys(key for row in rows for key in row))
    return {"keys": keys, "rows": rows, "every": -(-len(rows) // TABLE_ROWS)}


def _figures(table, config, parameters):
    """The headline figures, as (name, value, note)."""
    rows, training = table["rows"], config.get("training") or {}
    sense, _, monitored = str(training.get("monitor")).partition(" ")
    for key in _headline_keys(table["keys"]):
        values = [(row[key], row["epoch"]) for row in rows if key in row]
        finite = [pair for pair in values if math.isfinite(pair[0])]
        lower = sense == "min" if key == monitored else lower_is_better(key)
        best = (min if lower else max)(finite, key=lambda pair: pair[0], default=None)
        note = f"best {_number(best[0])}, epoch {best[1]}" if best else ""
        if spread := rows[-1].get(key + STD):
            note = f"± {_number(spread)} over the seeds; {note}"
        yield key.removeprefix("epoch_").replace("_", " "), values[-1][0], note
    if parameters is not None:
        yield "parameters", parameters, ""
    if rows:
        planned = training.get("epochs")
        yield "epochs", rows[-1]["epoch"], f"of {planned} planned" if planned else ""
    if seconds := [row["seconds"] for row in rows if "seconds" in row]:
        yield "time", _duration(sum(seconds)), f"{statistics.median(seconds):.3g} s per epoch"
    if speeds := [row["images_per_second"] for row in rows if "images_per_second" in row]:
        yield "images per second", round(statistics.median(speeds)), "median of the epochs"


def _headline_keys(keys):
    """At most four measures of the most telling split, the losses last."""
    for start in ("test_", "validation_", "epoch_train_"):
        found = [key for key in keys if key.startswith(start) and not key.endswith((*RATES, STD))]
        if found:
            return sorted(found, key=lower_is_better)[:4]
    return []


def render(template: str, **values) -> str:
    """Returns a template of this folder, filled in."""
    jinja = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    jinja.filters |= {"number": _number, "percent": _percent, "diagram": diagram}
    return jinja.get_template(template).render(**values)


def _number(value):
    """A number for the eye, with so few digits that a column lines up; text as it is."""
    if isinstance(value, str):
        return value
    if isinstance(value, int) or 1000 <= abs(value) < 1e9:
        return f"{value:,.0f}"
    if 0.01 <= abs(value) < 1000:
        return f"{value:.{4 if abs(value) < 10 else 2}f}"
    return f"{value:.3g}" if math.isfinite(value) else str(value).replace("nan", "NaN")


def _percent(share):
    """A share in percent that says 100 only for all, and "–" for a share of nothing."""
    if math.isnan(share):
        return "–"
    return "100" if share == 1 else f"{min(100 * share, 99.9):.1f}"


def _duration(seconds):
    """A time span in its two largest units."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s"
