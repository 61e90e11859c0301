"""Reads all data of a config and tells what is wrong with them, before anything is trained.

python -m data_loader.inspect -c config.json
python -m data_loader.inspect -c config.json --html data.html data_loader.train.args.batch_size=8

The exit code is 1 where training, or the figures of an evaluation, would be wrong.
"""

import argparse
import math
import sys
from collections.abc import Sequence

from tqdm import tqdm

import utils
from data_loader.inspect.findings import WRONG, class_names, judge, suggested_normalize
from data_loader.inspect.reading import Field, read_split
from training.common.tables import text_table
from training.config import read_config
from training.engine.loaders import make_loaders

SHOWN = 30  # classes in the table of the console


@utils.command
def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    options = parse_arguments(argv)
    page = utils.optional_module("data_loader.inspect.page") if options.html else None
    config = read_config(options.config, options.overrides)
    loaders = make_loaders(config, options.config)
    with tqdm(total=_examples(loaders), unit=" examples", disable=None, leave=False) as bar:
        splits = [read_split(name, loader, bar.update) for name, loader in loaders.items()]
    named = config.data_loader.preprocess
    findings = judge(splits, {"name": named.name, "args": named.args} if named else None)
    print("\n".join(summary(splits, findings)))
    if page:
        path = page.write_page(options.html, config.title, splits, findings)
        print(f"Look at {utils.printable(path)}")
    return 1 if any(one.level == WRONG for one in findings) else 0


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Returns the command line's options."""
    parser = argparse.ArgumentParser(
        prog="python -m data_loader.inspect",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-c", "--config", default="config.json", metavar="FILE")
    parser.add_argument(
        "--html", nargs="?", const="data.html", metavar="FILE", help="write a page (data.html)"
    )
    parser.add_argument("overrides", nargs="*", metavar="key.path=value")
    return parser.parse_intermixed_args(argv)


def summary(splits: list, findings: list) -> list[str]:
    """Returns the lines for the console."""
    lines = []
    for split in splits:
        lines.append(f"{split.name}: {split.examples:,} examples")
        for name, field in split.fields.items():
            lines.append(f"    {name}: {describe(field)}")
        for title, counter in (("formats", split.formats), ("modes", split.modes)):
            if counter:
                lines.append(
                    f"    {title}: " + ", ".join(f"{k} {n}" for k, n in counter.most_common())
                )
        if split.sizes:
            low, *_, high = sorted(split.sizes, key=math.prod) * 2
            lines.append(
                f"    sizes: {low[0]} x {low[1]} to {high[0]} x {high[1]} (height x width)"
            )
    lines += ["", *class_table(splits)]
    if measured := suggested_normalize(splits[0]):
        lines += ["", f'normalize: "mean": {measured["mean"]}, "std": {measured["std"]}']
    lines += ["", *(f"{one.level}: {one.text}" for one in findings)]
    wrong = sum(one.level == WRONG for one in findings)
    lines.append(f"Wrong: {wrong}." if wrong else "Nothing is wrong.")
    return lines


def class_table(splits: list) -> list[str]:
    """Returns the lines of a table of the examples of each class and split."""
    names = class_names(splits)
    if not names:
        return []
    counts = class_counts(splits, names)
    rows = [("class", *(split.name for split in splits))]
    rows += [(name, *map(str, row)) for name, row in counts[:SHOWN]]
    lines = text_table(rows, "<" + ">" * len(splits))
    return lines + [f"... and {len(counts) - SHOWN} more classes"] * (len(counts) > SHOWN)


def class_counts(splits: list, names: dict) -> list[tuple]:
    """Returns (name, number of examples in each split) of each class."""
    labels = [list(split.labels.values()) for split in splits]
    tables = [dict.fromkeys(names, 0) for _ in splits]
    for table, present in zip(tables, labels, strict=True):
        for label in present:
            table[label] += 1
    return [(name, [table[label] for table in tables]) for label, name in names.items()]


def describe(field: Field) -> str:
    """Returns the types, shapes and values of a Field in words."""
    shapes = list(field.shapes)
    shape = str(shapes[0]) if len(shapes) == 1 else f"{len(shapes)} shapes"
    if len(field.lengths) > 1:
        shortest, longest = min(field.lengths), max(field.lengths)
        shape += f", {shortest} to {longest} long (the longest: example {field.lengths[longest]})"
    values = f", {field.low:.6g} to {field.high:.6g}" if field.low <= field.high else ""
    return f"{' and '.join(field.dtypes)} {shape}{values}"


def _examples(loaders):
    """The number of examples, or None where a stream does not know it."""
    counts = [len(one.indices) if one.stream is None else one.examples for one in loaders.values()]
    return None if None in counts else sum(counts)


if __name__ == "__main__":
    sys.exit(main())
