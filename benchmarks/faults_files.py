"""Bad files: each is read, or refused with a UserError, quickly and in little memory."""

import gzip
import io
import json
import os
import pickle
import random
import time
import zipfile
import zlib

import numpy as np
import safetensors.numpy
from PIL import Image

from benchmarks.faults_common import ROOT, expect, write_digits
from training.checkpoint.reading import read
from training.checkpoint.restore import restore
from training.checkpoint.single_file import write
from training.engine.progress import Progress
from utils import UserError

WANTED = 0.1  # seconds for a checkpoint, at most
MEMORY = 200  # MiB that reading all of them may add to the process at most


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        """Returns the call that unpickling makes."""
        return os.mkdir, (self.path,)


def checkpoints(folder, count, seed=0):
    """Corrupts a checkpoint in many ways, and tries to resume from it.

    Returns:
        {name of a count: number}

    Raises:
        AssertionError: one was loaded, raised another error, took too long or too much memory.
    """
    state, meta = _state(), Progress(epochs=3).meta()
    path, bad, payload = folder / "whole.params", folder / "bad.params", folder / "payload"
    write(path, state, meta)
    _resume_from(path, state)
    chance, content = random.Random(seed), path.read_bytes()
    makers, slowest, counts = _corruptions(chance, content, state, meta, payload), {}, {}
    names, before = list(makers), _peak_memory()
    for number in range(count):
        kind = names[number % len(names)]
        while (changed := makers[kind]()) == content:  # bytes overwritten with themselves
            pass
        bad.write_bytes(changed)
        began = time.perf_counter()
        try:
            _resume_from(bad, state)
        except UserError:
            counts[kind] = counts.get(kind, 0) + 1
        else:
            raise AssertionError(f"{kind}: loaded although corrupted ({number})")
        seconds = time.perf_counter() - began
        slowest[kind] = max(slowest.get(kind, 0), seconds)
    expect(not payload.exists(), "code in a file was run")
    used = _peak_memory() - before
    expect(used < MEMORY, f"{used:.0f} MiB used, expected at most {MEMORY}")
    kind, seconds = max(slowest.items(), key=lambda item: item[1])
    expect(seconds < WANTED, f"{kind}: {seconds:.3f} s, expected at most {WANTED}")
    return {f"refused: {kind}": number for kind, number in counts.items()} | {
        "refused, of them all": f"{sum(counts.values())} of {count}",
        f"seconds for the slowest ({kind})": round(seconds, 4),
        "MiB of memory beyond those at the start": round(used),
    }


def configs(folder, count, seed=0):
    """Mutates the sample's config anywhere; reads it, builds the run and traces its update.

    Returns:
        {name of a count: number}
    """
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import seed as seeded
    from hypothesis import strategies as st

    write_digits(folder / "data")
    sample = json.loads((ROOT / "config.json").read_text())
    for split in ("train", "test"):
        args = sample["data_loader"][split]["args"]
        args |= {"batch_size": 64}
        args["dataset"]["args"] = {"root": str(folder / "data"), "split": split}
    counts, slowest = {"valid": 0, "refused": 0}, [0.0]

    @seeded(seed)
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def mutate(data):
        values = mutated(json.loads(json.dumps(sample)), data.draw)
        began = time.perf_counter()
        counts["valid" if _config_is_valid(values, folder / "config.json") else "refused"] += 1
        slowest[0] = max(slowest[0], time.perf_counter() - began)

    mutate()
    return {
        "mutated configs": sum(counts.values()),
        "of them still valid": counts["valid"],
        "of them refused with a message, none with a traceback": counts["refused"],
        "seconds for the slowest": round(slowest[0], 1),
    }


def mutated(values, draw):
    """Replaces a value of a config by any JSON, or gives it another key.

    Args:
        values: the config, a dict; changed in place.
        draw: hypothesis's function that draws from a strategy.
    """
    from hypothesis import strategies as st

    plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    plain |= st.sampled_from(["adamw", "a.b:c", "total_steps", "min x", ":", "../x"])
    anything = st.recursive(
        plain,
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
        ),
        max_leaves=6,
    )
    *parents, last = draw(st.sampled_from([path for path in _places(values) if path]))
    inner = values
    for key in parents:
        inner = inner[key]
    if isinstance(inner, list) or draw(st.booleans()):
        inner[last] = draw(anything)
    else:
        inner[draw(st.text(max_size=8))] = inner.pop(last)
    return values


def data(folder, count, seed=0):
    """Corrupts IDX files and images, and reads them.

    Returns:
        {name of a count: number}
    """
    from data_loader.idx import read_idx
    from data_loader.images import read_image

    chance, path, counts, slowest = random.Random(seed), folder / "x", {}, 0.0
    images = np.random.default_rng(seed).integers(0, 256, (20, 9, 7), np.uint8)
    header = bytes([0, 0, 8, 3]) + np.array(images.shape, ">u4").tobytes()
    wholes = {"IDX": header + images.tobytes()}
    wholes["IDX, gzipped"] = gzip.compress(wholes["IDX"])
    for kind in ("PNG", "JPEG"):
        stream = io.BytesIO()
        Image.fromarray(images[0]).resize((40, 30)).save(stream, kind)
        wholes[kind] = stream.getvalue()
    for number in range(count):
        kind = list(wholes)[number % len(wholes)]
        path.write_bytes(_damaged(chance, wholes[kind]))
        began, outcome = time.perf_counter(), "refused"
        try:
            read_idx(path, 3) if kind.startswith("IDX") else read_image(path, (9, 7), "RGB")
            outcome = "read"  # without checksums a changed pixel is not noticed
        except UserError as error:
            expect(str(path) in str(error), f"{error} does not name the file")
        counts[f"{kind}, {outcome}"] = counts.get(f"{kind}, {outcome}", 0) + 1
        slowest = max(slowest, time.perf_counter() - began)
    return counts | {"seconds for the slowest": round(slowest, 3)}


def _state():
    """Returns a state like that of a small network with Adam."""
    draw = np.random.default_rng(0).normal
    params = {
        f"layer{index}": {"kernel": draw(size=(30, 40)).astype(np.float32), "bias": np.zeros(40)}
        for index in range(4)
    }
    return {"step": np.int32(24), "params": params, "optimizers": {"mu": params, "nu": params}}


def _resume_from(path, state):
    """Does what `train.py --resume` does with a checkpoint."""
    arrays, meta = read(path)
    Progress.from_meta(meta, path)
    return restore(state, arrays, where=path)


def _corruptions(chance, content, state, meta, payload):
    """Returns {kind: function without arguments that returns a file's bytes}."""
    scratch = payload.with_name("scratch.params")

    def saved(tree, meta=meta):
        write(scratch, tree, meta)
        return scratch.read_bytes()

    def flipped():
        changed = bytearray(content)
        for _ in range(chance.choice([1, 1, 2, 8])):
            changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
        return bytes(changed)

    def wrong_shape():
        params = dict(state["params"])
        name = chance.choice(list(params))
        change = chance.choice([
            lambda x: x.T, lambda x: x[:-1], lambda x: x.astype(np.float16), lambda x: x[None],
            lambda x: x.view(np.int32), lambda x: x.astype(np.complex64), lambda x: x[:0],
        ])  # fmt: skip
        params[name] = params[name] | {"kernel": change(params[name]["kernel"])}
        return saved(state | {"params": params})

    def wrong_meta():
        key = chance.choice(list(meta))
        value = chance.choice([None, -1, "x", [], {}, 1.5, [1], {"a": 1}, {"a": [1]}, True])
        wrong = value in ({}, None) and key in ("best", "files", "interval", "epoch")
        return saved(state, meta | {key: "x" if wrong else value, chance.choice("ab"): 0})

    def foreign():
        stream = io.BytesIO()
        kind = chance.randrange(6)
        if kind == 0:
            return pickle.dumps(Payload(payload))
        if kind == 1:
            np.savez(stream, **{"params/a": np.ones(9)})
        elif kind == 2:
            np.save(stream, np.array([Payload(payload)], object), allow_pickle=True)
        elif kind == 3:
            Image.new("L", (9, 9)).save(stream, "PNG")
        elif kind == 4:
            with zipfile.ZipFile(stream, "w") as archive:
                archive.writestr("data.pkl", pickle.dumps(Payload(payload)))
        else:
            return safetensors.numpy.save({"params": np.ones(chance.randrange(9), np.float32)})
        return stream.getvalue()

    return {
        "bits flipped": flipped,
        "cut short": lambda: content[: chance.randrange(len(content))],
        "bytes lost, doubled or overwritten": lambda: _damaged(chance, content),
        "random bytes": lambda: chance.randbytes(chance.randrange(5000)),
        "random bytes after a correct length": lambda: _with_header(
            chance.randbytes(size := chance.randrange(5000)), size
        ),
        "other kinds of files": foreign,
        "another shape or dtype, with correct checksums": wrong_shape,
        "another progress, with correct checksums": wrong_meta,
        "hostile headers, with correct checksums": lambda: _hostile(chance),
        "hostile JSON": lambda: _hostile_text(chance),
    }


def _hostile(chance):
    """Returns a file whose header makes false claims."""
    huge = chance.choice([2**31, 2**40, 2**62, 2**63, 10**30, 10**400, -1, -(2**40), 1.5, "9"])
    shape = [chance.choice([huge, 1, 0, 2]) for _ in range(chance.choice([1, 2, 3, 60]))]
    offsets = [chance.choice([0, 4, huge]), chance.choice([0, 4, huge])]
    dtype = chance.choice(["F32", "U8", "F64", "BOOL", "O", "V9999999", 1, None, ["F32"]])
    entries = {"params/a": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}
    checksums = {"params/a": zlib.crc32(b"1234", _crc(["params/a", dtype, shape]))}
    words = ["{}", json.dumps(checksums)]
    metadata = {"meta": words[0], "checksums": words[1], "checksum": str(_crc(words))}
    header = json.dumps({"__metadata__": metadata, **entries}).encode()
    return _with_header(header, len(header)) + b"1234"


def _hostile_text(chance):
    """Returns a header that is slow to parse: deep, long or wide, up to the largest accepted."""
    size = chance.choice([1000, 10**5, 10**6, 2**22, 2**24])
    pieces = ["[", "[],", '{"a":', '"a":1,', "1", "{},", '"', " ", "1e5,", "\\u0041"]
    piece = chance.choice(pieces)
    opening = chance.choice(["", "[", "{", '{"a":['])
    header = (opening + piece * (size // len(piece))).encode()[:size]
    return _with_header(header, chance.choice([len(header), len(header), 2**40, 2**63, 0]))


def _with_header(header, length):
    return length.to_bytes(8, "little") + header


def _crc(words):
    return zlib.crc32(json.dumps(words).encode())


def _damaged(chance, content):
    """Returns the bytes with some of them lost, doubled, moved or overwritten."""
    changed = bytearray(content)
    for _ in range(chance.randint(1, 3)):
        at, length = chance.randrange(len(changed) + 1), chance.choice([1, 2, 8, 100])
        other = chance.choice([b"", chance.randbytes(length), changed[:length], bytes(length)])
        changed[at : at + chance.choice([0, length])] = other
    return bytes(changed)


def _config_is_valid(values, path):
    """Returns whether a run could start with it; lets errors other than UserError through."""
    from training.config import read_config
    from training.engine.build import build
    from training.engine.initialize import dry_run

    path.write_text(json.dumps(values))
    try:
        experiment = build(read_config(path), str(path))
        dry_run(experiment, next(experiment.loaders["train"].batches(1)))
    except UserError:
        return False
    return True


def _places(value, path=()):
    """Yields the path of every value in nested dicts and lists."""
    yield path
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _places(inner, (*path, key))


def _peak_memory():
    """Returns the peak memory of this process in MiB."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
