"""Weights that a run begins with: all but some parts, converted, and those of other programs."""

import json

import numpy as np
import pytest
import safetensors.numpy

from training.config import read_config
from training.engine.build import build
from training.engine.initialize import fresh_state
from utils import UserError

SHAPES = {"hidden0/kernel": (784, 16), "hidden0/bias": (16,), "head/kernel": (16, 10)}
SHAPES |= {"head/bias": (10,)}


def weights(**others):
    """The arrays of the small network of the tests, each with a number of its own."""
    arrays = {name: np.full(shape, i + 1.0, np.float32) for i, (name, shape) in
              enumerate(SHAPES.items())}  # fmt: skip
    return arrays | {name.replace("__", "/"): array for name, array in others.items()}


def as_torch(arrays):
    """Names and shapes as PyTorch has them."""
    return {
        name.replace("/kernel", ".weight").replace("/bias", ".bias"):
        np.ascontiguousarray(array.T)
        for name, array in arrays.items()
    }  # fmt: skip


def from_torch(arrays, scale=1):
    """A conversion: the network's parameters of what PyTorch would save."""
    tree = {}
    for name, array in arrays.items():
        part, kind = name.split(".")
        leaf = "kernel" if kind == "weight" else "bias"
        tree.setdefault(part, {})[leaf] = scale * array.T
    return tree


def not_a_tree(arrays):
    """A conversion that fails."""
    return arrays["classifier"]


@pytest.fixture
def begin(config, tmp_path):
    """Returns the parameters with which a run begins that is given a file."""

    def begin(arrays, name="foreign.safetensors", **wanted):
        path = tmp_path / name
        if arrays is not None:
            safetensors.numpy.save_file(arrays, path)
        config["training"]["checkpoint"] = {"path": str(path), **wanted}
        checked = read_config(config)
        return fresh_state(build(checked), checked).params

    return begin


def value(params, part):
    """The number that an array was filled with; None if it is not of the file."""
    part, leaf = part.split("/")
    numbers = np.unique(np.asarray(params[part][leaf]))
    return float(numbers[0]) if len(numbers) == 1 and numbers[0] else None


def test_a_file_of_another_program_is_read_and_must_fit(begin):
    assert [value(begin(weights()), name) for name in SHAPES] == [1, 2, 3, 4]
    for arrays, expected in [
        ({k: v for k, v in weights().items() if "bias" not in k}, "2 missing:.*head/bias"),
        (weights(heed__bias=np.zeros(10, np.float32)), "1 not expected:.*heed/bias"),
        (weights(head__bias=np.zeros(5, np.float32)), r"1 different:.*\(5,\), expected .*\(10,\)"),
    ]:
        with pytest.raises(UserError, match=rf"(?s)does not fit.*{expected}.*except"):
            begin(arrays)


def test_all_but_some_parts_are_taken(begin):
    other = weights(head__kernel=np.ones((16, 3), np.float32), old__bias=np.ones(3, np.float32))
    params = begin(other, **{"except": ["head", "old"]})
    assert [value(params, name) for name in SHAPES] == [1, 2, None, None]
    params = begin(weights(), **{"except": ["*.kernel"]})
    assert [value(params, name) for name in SHAPES] == [None, 2, None, 4]
    params = begin(weights(), **{"except": ["head.bias"], "partial": ["head"]})
    assert [value(params, name) for name in SHAPES] == [None, None, 3, None]
    for paths, expected in [
        (["haed"], "no part 'haed' in the file or the network; did you mean 'head'"),
        (["*"], "leaves nothing to take"),
    ]:
        with pytest.raises(UserError, match=expected):
            begin(weights(), **{"except": paths})
    with pytest.raises(UserError, match="1 not expected:\n    old/bias"):
        begin(other, **{"except": ["head"]})


def test_a_function_converts_names_and_shapes(begin):
    convert = f"{__name__}:from_torch"
    params = begin(as_torch(weights()), convert=convert)
    assert [value(params, name) for name in SHAPES] == [1, 2, 3, 4]
    params = begin(as_torch(weights()), convert={"name": convert, "args": {"scale": 3}},
                   **{"except": ["head"]})  # fmt: skip
    assert [value(params, name) for name in SHAPES] == [3, 6, None, None]
    with pytest.raises(UserError, match=r"not_a_tree of .*KeyError: 'classifier' .*hidden0"):
        begin(as_torch(weights()), convert=f"{__name__}:not_a_tree")
    with pytest.raises(UserError, match=r"training.checkpoint.convert.name"):
        begin(as_torch(weights()), convert=f"{__name__}:from_troch")


def test_an_index_of_several_files_is_read(begin, tmp_path):
    arrays, files = weights(), {}
    for number, (name, array) in enumerate(arrays.items()):
        files[name] = f"model-{number % 2}.safetensors"
        path = tmp_path / files[name]
        before = safetensors.numpy.load_file(path) if path.exists() else {}
        safetensors.numpy.save_file(before | {name: array}, path)
    name = "model.safetensors.index.json"
    index = {"metadata": {"total_size": 1}, "weight_map": files}
    (tmp_path / name).write_text(json.dumps(index, indent=1))
    assert [value(begin(None, name), one) for one in SHAPES] == [1, 2, 3, 4]
    (tmp_path / "model-1.safetensors").unlink()
    with pytest.raises(
        UserError, match=r"model-1.safetensors: there is no such file, but an index"
    ):
        begin(None, name)
    for text in ('{"weight_map": {"a": "../a"}}', '{"weights": 1}', "{", '{"weight_map": 3}'):
        (tmp_path / name).write_text(text)
        with pytest.raises(UserError, match="this is no index of safetensors files"):
            begin(None, name)


def test_a_damaged_file_is_refused_in_one_line(begin, tmp_path):
    path = tmp_path / "foreign.safetensors"
    begin(weights())
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["head/bias"]["shape"] = [11]
    wrong = json.dumps(header).encode().ljust(length)[:length]
    for damaged in (
        content[:-1],
        content[:100],
        b"",
        b"hello",
        content[:8] + wrong + content[8 + length :],
    ):
        path.write_bytes(damaged)
        with pytest.raises(
            UserError, match=r"foreign.safetensors is cut, damaged or no safetensors"
        ):
            begin(None)
    for pickle in (b"PK\x03\x04 torch", b"\x80\x04\x95"):
        (tmp_path / "model.pt").write_bytes(pickle)
        with pytest.raises(UserError, match=r"looks like a pickle.*save_file.*model.safetensors"):
            begin(None, "model.pt")
