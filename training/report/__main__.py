"""Shows several runs on one page.

python -m training.report RUN RUN ...
python -m training.report saved/MNIST_Sample       all runs in a folder
"""

import argparse
import sys

from training.report.comparison import write_comparison
from utils import UserError


def main(argv=None):
    """Writes the page of several runs; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m training.report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folders, two or more")
    parser.add_argument(
        "--out", metavar="FILE", help="the page; by default comparison.html beside the runs"
    )
    options = parser.parse_args(argv)
    try:
        print(f"Look at {write_comparison(options.runs, options.out)}")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
