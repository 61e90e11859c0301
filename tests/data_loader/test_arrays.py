"""NumPy files as data sets."""

import pickle

import numpy as np
import pytest

from data_loader.dataloader import DataLoader
from data_loader.sources.arrays import Arrays
from utils import UserError


@pytest.fixture
def parts(tmp_path):
    """Inputs and targets in .npy files, a plain and a compressed archive; paths by name."""
    random = np.random.default_rng(0)
    x = random.normal(size=(50, 3, 2)).astype(np.float32)
    y = random.integers(0, 5, 50)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", y)
    np.savez(tmp_path / "plain.npz", x=x, y=y)
    np.savez_compressed(tmp_path / "small.npz", x=x, y=y)
    return tmp_path, x, y


def opened(folder, kind):
    if kind == "npy":
        return Arrays(str(folder / "x.npy"), str(folder / "y.npy"))
    return Arrays("x", "y", archive=str(folder / f"{kind}.npz"))


@pytest.mark.parametrize("kind", ["npy", "plain", "small"])
def test_a_batch_equals_the_rows_of_the_arrays(parts, kind):
    folder, x, y = parts
    data = opened(folder, kind)
    assert len(data) == 50
    indices = np.array([49, 3, 3, 0])
    inputs, targets = data.__getitems__(indices)
    np.testing.assert_array_equal(inputs, x[indices])
    np.testing.assert_array_equal(targets, y[indices])
    assert targets.dtype == np.int32
    one, target = data[7]
    np.testing.assert_array_equal(one, x[7])
    assert target == y[7]
    batches = list(DataLoader(data, 8, shuffle=True).batches(1))
    assert sorted(np.concatenate([b["targets"] for b in batches])[:50]) == sorted(y)


def test_a_compressed_archive_is_read_into_memory_with_a_word(parts, caplog):
    caplog.set_level("INFO")
    opened(parts[0], "plain")
    assert caplog.text == ""
    opened(parts[0], "small")
    assert "x is compressed, so it is read into memory" in caplog.text


def test_arrays_are_sent_to_a_worker_without_their_content(parts):
    data = opened(parts[0], "plain")
    sent = pickle.dumps(data)
    assert len(sent) < 1000
    np.testing.assert_array_equal(pickle.loads(sent)[9][0], parts[1][9])


def test_several_inputs_are_a_dict(parts):
    folder, x, y = parts
    names = {"a": str(folder / "x.npy"), "b": str(folder / "y.npy")}
    inputs, targets = Arrays(names, str(folder / "y.npy"), classes=["p", "q"])[4]
    np.testing.assert_array_equal(inputs["a"], x[4])
    assert inputs["b"] == targets == y[4]


def test_memory_in_fortrans_order_has_the_same_values(tmp_path):
    x = np.arange(24.0).reshape(4, 6)
    np.save(tmp_path / "x.npy", np.asfortranarray(x))
    data = Arrays(str(tmp_path / "x.npy"), str(tmp_path / "x.npy"))
    np.testing.assert_array_equal(data.__getitems__(np.array([2, 1]))[0], x[[2, 1]])


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array([{}, 1], dtype=object), "holds Python objects, which are not unpickled"),
        (np.array(["a"] * 50), "an array of <U1; expected numbers"),
        (np.zeros(50, [("a", "f4")]), "expected numbers"),
        (np.zeros(49), r"of different lengths: .* 50, .* 49"),
        (np.zeros((50, 0)), r"has the shape \(50, 0\)"),
        (np.float32(3), r"has the shape \(\)"),
    ],
)
def test_arrays_that_are_no_rows_of_numbers_are_refused(array, message, parts):
    folder, _, _ = parts
    np.save(folder / "odd.npy", array, allow_pickle=True)
    with pytest.raises(UserError, match=message):
        Arrays(str(folder / "x.npy"), str(folder / "odd.npy"))


def test_a_pickle_in_an_archive_is_not_opened(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "opened"), "w"))

    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "trap.npz", x=np.array([Trap()], dtype=object))
        with pytest.raises(UserError, match=r"trap\.npz"):
            Arrays("x", "x", archive=str(tmp_path / "trap.npz"))
    assert not (tmp_path / "opened").exists()


def test_damaged_and_absent_files_are_refused(parts):
    folder, _, _ = parts
    whole = (folder / "x.npy").read_bytes()
    for content in (whole[:-1], whole[:50], b"", b"PK\3\4", b"\x93NUMPY\x01\x00\xff\xff"):
        (folder / "cut.npy").write_bytes(content)
        with pytest.raises(UserError, match=r"cut\.npy: (damaged|cannot be read)"):
            Arrays(str(folder / "cut.npy"), str(folder / "y.npy"))
    archive = (folder / "plain.npz").read_bytes()
    (folder / "cut.npz").write_bytes(archive[:-40])
    with pytest.raises(UserError, match=r"cut\.npz: cannot be read"):
        Arrays("x", "y", archive=str(folder / "cut.npz"))
    with pytest.raises(UserError, match="no such file"):
        Arrays(str(folder / "z.npy"), str(folder / "y.npy"))
    with pytest.raises(UserError, match="no array 'xx'; did you mean 'x'"):
        Arrays("xx", "y", archive=str(folder / "plain.npz"))


def test_a_number_that_int32_does_not_hold_is_refused_with_its_row(parts):
    folder, _, _ = parts
    wide = np.arange(50)
    wide[31] = 2**31
    np.save(folder / "wide.npy", wide)
    data = Arrays(str(folder / "x.npy"), str(folder / "wide.npy"))
    assert data.__getitems__(np.arange(31))[1].tolist() == list(range(31))
    for indices in (np.arange(20, 40), 31):
        with pytest.raises(UserError, match="row 31: a whole number that int32 does not hold"):
            data.__getitems__(indices)
