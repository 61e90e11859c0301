"""The results of an export's equivalence check: a table for the console, JSON, and an HTML page."""

import json
import math
from pathlib import Path

import jinja2

from training.common.tables import text_table

HERE = Path(__file__).resolve().parent
HEADINGS = ("file", "error", "same class", "accuracy", "bytes", "operators", "time / JAX's")


def console_table(report):
    """Returns the results as text: a table, then inputs, outputs and a test output of each file."""
    rows = [HEADINGS, *(_row(result) for result in report["files"])]
    lines = ["", *text_table(rows, "<" + ">" * (len(HEADINGS) - 1)), ""]
    for result in report["files"]:
        lines += [f"{result['file']}: {broken}" for broken in result["broken"]]
        if "inputs" not in result:
            continue
        lines.append(f"{result['file']}: {_nodes(result['inputs'])} -> {_nodes(result['outputs'])}")
        for name, numbers in result.get("first_output", {}).items():
            lines.append(f"    {name} of the first test example: {_numbers(numbers)}")
    return "\n".join(lines)


def write_report(folder, report):
    """Writes report.json and report.html into an export's folder."""
    values = json.dumps(_finite(report), indent=4, allow_nan=False)
    (folder / "report.json").write_text(values + "\n", encoding="utf-8")
    loader = jinja2.FileSystemLoader(HERE)
    template = jinja2.Environment(loader=loader, autoescape=True).get_template("report.html.jinja")
    html = template.render(
        report=report,
        headings=HEADINGS,
        rows=[(result, _row(result)) for result in report["files"]],
        limits=[(kind, _limits(named)) for kind, named in report["limits"].items()],
        nodes=_nodes,
        numbers=_numbers,
    )
    page = html.encode(errors="backslashreplace")  # as of names that are no text
    (folder / "report.html").write_bytes(page)


def _row(result):
    """Returns a result's cells under HEADINGS."""
    if "inputs" not in result:
        return (result["file"], "refused", *[""] * (len(HEADINGS) - 2))
    same = accuracy = "-"
    if "same_class" in result:
        same = f"{result['same_class']} / {result['decisions']}"
    if "accuracy" in result:
        change = 100 * result["accuracy_change"]
        accuracy = f"{100 * result['accuracy']:.2f} % ({change:+.2f})"
    operators = str(sum(result["operators"].values())) if result["operators"] else "-"
    latency = result.get("latency", {})
    times = ", ".join(f"{ratio:.2f} ({batch})" for batch, ratio in latency.items()) or "-"
    size = f"{result['bytes']:,}"
    error = f"{result['error']:.1e}" if "error" in result else "-"
    return result["file"], error, same, accuracy, size, operators, times


def _limits(named):
    return ", ".join(f"{name} {value:g}" for name, value in named.items())


def _nodes(arrays):
    return ", ".join(
        f"{name} {one['dtype']} ({', '.join(map(str, one['shape']))})"
        for name, one in arrays.items()
    )


def _finite(value):
    """Values as JSON has them: a number that is not finite becomes a word, "inf" or "nan"."""
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _numbers(numbers):
    return " ".join(f"{number:.5g}" for number in numbers)
