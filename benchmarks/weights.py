"""How long weights of another program take to import, compared with reading their file.

    python benchmarks/weights.py [--folder /tmp]

A file of a ViT of 100 million parameters, with PyTorch's names and layouts, is written, then read
by the safetensors library and imported, in turn. Each time is that of a process of its own, which
reports by how much its memory grew. The best of nine counts. The processor's time is less disturbed
than the clock by what else the machine does.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from training.common.trees import named_leaves
from training.config import Named, Pretrained
from training.engine.pretrained import fill, read_weights
from training.weights.export_weights import to_torch, write_safetensors

MODEL = Named(name="model.zoo.vit:vit", args={"depth": 14})
REPEATS = 9


def main():
    """Prints the times, their ratio and the memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", default=None, help="where the file is written")
    parser.add_argument("--only", choices=("read", "import"), help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        print(json.dumps(measured(options.only, options.file)))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        file = Path(folder, "model.safetensors")
        random = np.random.default_rng(0)
        params = {
            name: random.standard_normal(leaf.shape, np.float32)
            for name, leaf in named_leaves(template()).items()
        }
        write_safetensors(file, to_torch(params, []))
        count, size = sum(array.size for array in params.values()), file.stat().st_size
        print(f"{count / 1e6:.1f} M parameters, {size / 2**20:.0f} MiB")
        found = {"read": [], "import": []}
        for _ in range(REPEATS):
            for what, results in found.items():
                command = [sys.executable, __file__, "--only", what, "--file", str(file)]
                results.append(json.loads(subprocess.check_output(command)))
    best = {
        what: [min(column) for column in zip(*results, strict=True)]
        for what, results in found.items()
    }
    for what, (seconds, processor, memory) in best.items():
        print(f"{what}: {seconds:.2f} s, of the processor {processor:.2f} s; "
              f"memory {memory / 2**20:.0f} MiB")  # fmt: skip
    ratios = [one / other for one, other in zip(best["import"], best["read"], strict=True)]
    print(f"ratio: {ratios[0]:.2f}, of the processor's time {ratios[1]:.2f}")


def template():
    """Returns the shapes of the network's parameters."""
    from model.zoo.vit import vit

    x = jax.ShapeDtypeStruct((1, 3, 224, 224), np.float32)
    return jax.eval_shape(lambda x: vit(x, **MODEL.args, key=jax.random.key(0))[1], x)


def measured(what, file):
    """Returns the seconds of one of both, those of the processor, and the bytes of memory."""
    from safetensors.numpy import load_file

    shapes = template()
    before = memory_of("VmRSS")
    start = time.perf_counter(), time.process_time()
    if what == "read":
        load_file(file)
    else:
        fill(shapes, read_weights(MODEL, Pretrained(path=str(file)), shapes))
    taken = time.perf_counter() - start[0], time.process_time() - start[1]
    return *taken, memory_of("VmHWM") - before


def memory_of(line):
    """Returns a line of /proc/self/status in bytes: VmRSS, the present memory; VmHWM, the most."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.partition(f"{line}:")[2].split()[0]) * 1024


if __name__ == "__main__":
    main()
