"""The memory of a run's end where outputs are large: evaluation, metrics over the epoch, report.

python benchmarks/kept_outputs.py language    a language model: 1,024 positions x 32,000 words, 48
                                              test sequences; nothing asks for the outputs
python benchmarks/kept_outputs.py classes     10,000 classes, 20,000 examples: predictions, report
python benchmarks/kept_outputs.py epoch       500 numbers of each of 1,000,000 examples, which a
                                              metric over the epoch asks for: 2 GB

Each trains one update, evaluates and writes the report, and prints the seconds and the largest
resident memory of the process.
"""

import argparse
import json
import resource
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax.numpy as jnp
import numpy as np

from model.modules import Layers, linear
from training.metrics import over_the_epoch


class Made:
    """`count` examples that are made when they are read; the targets of words are their inputs."""

    def __init__(self, count, length, classes):
        self.count, self.length, self.classes = count, length, classes

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        if self.length:
            words = np.arange(index, index + self.length, dtype=np.int32) % self.classes
            return words, words
        return np.full(16, index % 7, np.float32), np.int32(index % self.classes)


def words(x, classes, *, params=None, key=None, train=False):
    """Returns (batch, positions, classes) logits."""
    layer = Layers(params, key, train)
    x = jnp.sin(x[..., None] * jnp.arange(1.0, 17.0))
    return layer("out", linear, x, classes), layer.params


def classifier(x, classes, *, params=None, key=None, train=False):
    """Returns (batch, classes) logits."""
    layer = Layers(params, key, train)
    return layer("out", linear, x, classes), layer.params


@over_the_epoch
def mean_and_spread(outputs, targets):
    """Reads all outputs, block by block."""
    sums = [(part.sum(), len(part)) for part in np.array_split(outputs, 1000)]
    return {"mean": sum(one for one, _ in sums) / outputs.size, "examples": len(outputs)}


CASES = {
    "language": {"network": "words", "count": 48, "length": 1024, "classes": 32_000, "batch": 2},
    "classes": {"network": "classifier", "count": 20_000, "classes": 10_000, "batch": 250},
    "epoch": {"network": "classifier", "count": 1_000_000, "classes": 500, "batch": 2_000},
}


def config(case, folder):
    """Returns the config of a case, as a dict."""
    here = f"benchmarks.{Path(__file__).stem}"

    def loader(count):
        args = {"count": count, "length": case.get("length", 0), "classes": case["classes"]}
        return {
            "name": "DataLoader",
            "args": {
                "dataset": {"name": f"{here}:Made", "args": args},
                "batch_size": case["batch"],
            },
        }

    metrics = [f"{here}:mean_and_spread"] if case is CASES["epoch"] else ["accuracy"]
    return {
        "title": "Kept",
        "model": {"name": f"{here}:{case['network']}", "args": {"classes": case["classes"]}},
        "data_loader": {
            "train": loader(case["batch"]),
            "test": loader(case["count"]),
            "cache_on_device": False,
        },
        "training": {
            "loss": "cross_entropy",
            "metrics": metrics,
            "optimizer": {"name": "sgd", "args": {"learning_rate": 0.1}},
            "epochs": 1,
            "save_dir": str(folder),
        },
    }


def main():
    """Runs the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("case", choices=CASES)
    case = CASES[parser.parse_args().case]
    import train

    with tempfile.TemporaryDirectory() as folder:
        path, began = Path(folder) / "config.json", time.perf_counter()
        path.write_text(json.dumps(config(case, folder)))
        run = train.fit(path)
        seconds = time.perf_counter() - began
    size = case["count"] * (case.get("length") or 1) * case["classes"] * 4
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print({name: value for name, value in run.metrics.items() if name.startswith("test")})
    print(f"outputs {size / 1e9:.2f} GB, largest memory {peak / 1e9:.2f} GB, {seconds:.0f} s")


if __name__ == "__main__":
    main()
