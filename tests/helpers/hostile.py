"""Runs and files as somebody else may have made them."""

import gzip
import importlib
import json
import shutil
import struct
import zlib
from collections.abc import Callable
from random import Random
from typing import NamedTuple

import numpy as np

from tests.helpers.project import ROOT

MARK = "open({path!r}, 'a').close()\n"  # code that leaves a file behind


def plant(path, mark):
    """Adds code to a file that leaves the file `mark` behind if it ever runs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a") as file:
        file.write("\n" + MARK.format(path=str(mark)))


def mutated(content, seed):
    """Bytes with a few bits, bytes or pieces changed, cut, doubled or moved."""
    random, content = Random(seed), bytearray(content)
    for _ in range(random.choice([1, 1, 2, 5, 20])):
        if not content:
            break
        place, count = random.randrange(len(content)), random.randrange(1, 64)
        if random.random() < 0.5:  # most of what a file says stands at its beginning
            place = random.randrange(min(len(content), 2000))
        kind = random.randrange(6)
        if kind == 0:
            content[place] ^= 1 << random.randrange(8)
        elif kind == 1:
            content[place : place + count] = random.randbytes(count)
        elif kind == 2:
            del content[place : place + count]
        elif kind == 3:
            content[place:place] = content[:count]
        elif kind == 4:
            del content[place:]
        else:
            words = [b"null", b"[]", b"{}", b"-1", b"1e999", b"9" * 5000, b"\xff\xfe", b"[" * 3000]
            content[place : place + random.randrange(8)] = random.choice(words)
    return bytes(content)


def resealed_checkpoint(content, seed):
    """A checkpoint whose header says something else, its own checksum correct."""
    random = Random(seed)
    length = int.from_bytes(content[:8], "little")
    header, arrays = json.loads(content[8 : 8 + length]), content[8 + length :]
    values = [None, True, -1, 0, 2**63, 1e308, "x", "U8", [], [-1], [2**40], [0] * 99, {}, [[]],
              {"a": None}, "\x1b[2J", "9" * 5000]  # fmt: skip
    names = [name for name in header if name != "__metadata__"]
    for _ in range(random.choice([1, 2, 5])):
        entry = header[random.choice(names)]
        entry[random.choice([*entry, "more"])] = random.choice(values)
    metadata = header["__metadata__"]
    for key in ("meta", "checksums"):
        if random.random() < 0.5:
            inner = json.loads(metadata[key])
            inner[random.choice([*inner, "more"])] = random.choice(values)
            metadata[key] = json.dumps(inner)
    checksum = zlib.crc32(json.dumps([metadata["meta"], metadata["checksums"]]).encode())
    metadata["checksum"] = str(checksum)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + arrays


# Kinds of files: make(folder) prepares one and returns a function that opens it, changed by a seed
# or, for None, as it is. That raises UserError or nothing.


class Kind(NamedTuple):
    """A kind of file: how many to try in the benchmark, and what prepares one in a folder."""

    count: int
    make: Callable


def _checkpoints(folder):
    from training.checkpoint.reading import read, read_meta
    from training.checkpoint.restore import network_params
    from training.engine.progress import Progress

    content = (ROOT / "tests/fixtures/old_run/checkpoint-epoch_2.params").read_bytes()
    path = folder / "checkpoint-epoch_2.params"

    def open_file(seed):
        change = resealed_checkpoint if seed is not None and seed % 2 else mutated
        path.write_bytes(content if seed is None else change(content, seed))
        arrays, meta = read(path)
        read_meta(path)
        network_params(arrays)
        Progress.from_meta(meta, path, arrays)

    return open_file


def _configs(folder):
    from training.config import read_config

    content, path = (ROOT / "config.json").read_bytes(), folder / "config.json"

    def open_file(seed):
        path.write_bytes(content if seed is None else mutated(content, seed))
        read_config(path)

    return open_file


def _exports(folder):
    from inference.serving.classifier import load
    from tests.helpers.exports import INSIDE, metadata_of, write_onnx, write_tflite

    random = np.random.default_rng(0)
    weights = random.normal(size=(784, 10)).astype(np.float32), np.zeros(10, np.float32)
    write_onnx(folder / "net.onnx", weights, INSIDE)
    write_tflite(folder / "net.tflite", weights)
    contents = [(path, path.read_bytes()) for path in sorted(folder.iterdir())]
    metadata = json.dumps(metadata_of(INSIDE)).encode()

    def open_file(seed):
        path, content = contents[(seed or 0) % 2]
        if seed is not None and seed % 3:  # only what it says, of the same length
            said = mutated(metadata, seed)[: len(metadata)].ljust(len(metadata))
            content = content.replace(metadata, said)
        elif seed is not None:
            content = mutated(content, seed)
        path.write_bytes(content)
        network = load(path, threads=1)
        network.run(np.zeros((network.batch or 2, *network.shape), np.uint8))

    return open_file


def _lines(folder):
    from training.report.page import write_report

    lines = [
        {"step": step, "epoch": 1, "batch": step, "train_loss": 1 / step} for step in (1, 2, 3)
    ]
    lines += [{"step": 4, "epoch": 1, "test_loss": 0.5, "test_accuracy": 0.5}]
    content = b"".join(json.dumps(line).encode() + b"\n" for line in lines)

    def open_file(seed):
        (folder / "metrics.jsonl").write_bytes(content if seed is None else mutated(content, seed))
        write_report(folder)

    return open_file


def _idx(folder):
    from data_loader.idx import read_idx

    path = folder / "images-idx3-ubyte"
    content = struct.pack(">4i", 2051, 20, 28, 28) + bytes(20 * 784)

    def open_file(seed):
        changed = content if seed is None else mutated(content, seed)
        path.write_bytes(
            changed if seed is None or seed % 2 else gzip.compress(changed)[: -seed % 9]
        )
        read_idx(path, 3)

    return open_file


def _runs(folder):
    from training.common import kept_code

    shutil.copytree(ROOT / "model", folder / "model", ignore=shutil.ignore_patterns("__pycache__"))
    mark, files = folder / "ran", [*(folder / "model").rglob("*.py")]
    files += [folder / "config.json", folder / kept_code.RECORD]
    (folder / "config.json").write_bytes((ROOT / "config.json").read_bytes())
    code = {path.relative_to(folder).as_posix(): path.read_bytes() for path in files[:-2]}
    kept_code.sign(folder, code, [])
    contents = {path: path.read_bytes() for path in files}

    def open_file(seed):
        for path, content in contents.items():
            path.write_bytes(content)
        if seed is not None:
            path = files[seed % len(files)]
            path.write_bytes(mutated(contents[path], seed))
            if path.suffix == ".py":
                plant(path, mark)
        with kept_code.code_of(folder):
            importlib.import_module("model.model")
        if mark.exists():
            raise RuntimeError("code ran that nobody trusts")

    return open_file


KINDS = {
    "checkpoints": Kind(10_000, _checkpoints), "configs": Kind(2_000, _configs),
    "exports": Kind(2_000, _exports), "lines": Kind(2_000, _lines), "idx": Kind(2_000, _idx),
    "runs": Kind(1_000, _runs),
}  # fmt: skip
