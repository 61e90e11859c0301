"""The results of an export's equivalence check: a table for the console, JSON, and an HTML page."""

import json
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
    (folder / "report.json").write_text(json.dumps(report, indent=4) + "\n", encoding="utf-8")
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
    (folder / "report.html").write_text(html, encoding="utf-8")


def _row(result):
    """Returns a result's cells under HEADINGS."""
    if "inputs" not in result:
        return (result["file"], "refused", *[""] * (len(HEADINGS) - 2))
    errors = [result.get("error", 0.0), *(one["error"] for one in result["random"].values())]
    same = accuracy = "-"
    if "same_class" in result:
        same = f"{result['same_class']} / {result['examples']}"
        change = 100 * result["accuracy_change"]
        accuracy = f"{100 * result['accuracy']:.2f} % ({change:+.2f})"
    operators = str(sum(result["operators"].values())) if result["operators"] else "-"
    times = ", ".join(f"{ratio:.2f} ({batch})" for batch, ratio in result["latency"].items())
    size = f"{result['bytes']:,}"
    return result["file"], f"{max(errors):.1e}", same, accuracy, size, operators, times


def _limits(named):
    return ", ".join(f"{name} {value:g}" for name, value in named.items())


def _nodes(arrays):
    return ", ".join(
        f"{name} {one['dtype']} ({', '.join(map(str, one['shape']))})"
        for name, one in arrays.items()
    )


def _numbers(numbers):
    return " ".join(f"{number:.5g}" for number in numbers)
