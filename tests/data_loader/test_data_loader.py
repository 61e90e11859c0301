"""Data sets, loaders, image files and transforms."""

import contextlib
import functools
import gc
import gzip
import hashlib
import http.server
import io
import multiprocessing
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import tracemalloc
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from data_loader import idx as idx_files
from data_loader import images as image_files
from data_loader.base import BaseDataLoader, collate
from data_loader.dataloader import DataLoader, IdxImages, ImageFolder
from data_loader.transforms import normalize, random_shift
from tests.helpers.data_sets import Dying, Failing, Numbers, WholeNumbers
from tests.helpers.project import ROOT, by_set
from utils import UserError

PAIR = ["train-images-idx3-ubyte", "train-labels-idx1-ubyte"]
compress = functools.partial(gzip.compress, mtime=0)  # the same bytes in every process
few = functools.partial(
    settings,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def listed(batches):
    return [{name: np.asarray(value).tolist() for name, value in b.items()} for b in batches]


def real(batches):
    """Returns the examples of weight 1, in order."""
    return [
        int(x)
        for b in batches
        for x, w in zip(b["inputs"][:, 0], b["weight"], strict=True)
        if w == 1
    ]


def wait_until(true, seconds=10):
    deadline = time.monotonic() + seconds
    while not true() and time.monotonic() < deadline:
        time.sleep(0.02)
    return true()


# ---- Order and splits


@few(max_examples=60)
@given(
    st.integers(1, 60),
    st.integers(1, 60),
    st.booleans(),
    st.integers(0, 2**63 - 1),
    st.integers(1, 1000),
    st.sampled_from([Numbers, WholeNumbers]),
    st.integers(0, 3),
    st.data(),
)
def test_an_epoch_has_every_example_once_and_resumes_at_any_batch(
    examples, batch_size, shuffle, seed, epoch, dataset, prefetch, data
):
    batch_size = min(batch_size, examples)
    loader = DataLoader(dataset(examples), batch_size, shuffle, seed, prefetch=prefetch)
    batches = list(loader.batches(epoch))
    assert len(batches) == len(loader) == int(np.ceil(examples / batch_size))
    assert sorted(real(batches)) == list(range(examples))
    for batch in batches:
        assert batch["inputs"].shape == (batch_size, 1)
        assert batch["weight"].dtype == np.float32
        assert set(batch["weight"]) <= {0, 1}
        assert set(batch["inputs"][:, 0]) <= set(range(examples))
        assert (batch["targets"] == -batch["inputs"][:, 0]).all()
    start = data.draw(st.integers(0, len(batches)))
    assert listed(loader.batches(epoch, start)) == listed(batches[start:])


def test_without_shuffle_every_epoch_has_the_data_sets_own_order():
    loader = DataLoader(Numbers(10), 4)
    assert real(loader.batches(1)) == real(loader.batches(2)) == list(range(10))


def test_shuffles_differ_by_epoch_and_by_seed_and_repeat_otherwise():
    def order(seed, epoch):
        return real(DataLoader(WholeNumbers(100), 10, True, seed).batches(epoch))

    assert order(0, 1) == order(0, 1)
    assert len({tuple(order(seed, epoch)) for seed in range(3) for epoch in range(1, 4)}) == 9


def test_an_order_is_drawn_once_and_kept_in_32_bits_but_examples_are_asked_for_in_64():
    asked = []

    class Asked(WholeNumbers):
        def __getitems__(self, indices):
            asked.append(np.asarray(indices))
            return super().__getitems__(indices)

    loader = DataLoader(Asked(100), batch_size=8, shuffle=True, validation_split=0.1, prefetch=0)
    order = loader.order(1)
    assert order.dtype == loader.indices.dtype == np.int32
    assert np.shares_memory(order, loader.order(1))
    assert not np.shares_memory(order, loader.order(2))
    asked.clear()
    assert len(list(loader.batches(1))) == len(asked) == 12
    assert {one.dtype for one in asked} == {np.dtype(np.int64)}
    np.testing.assert_array_equal(np.concatenate(asked), order)


def test_another_process_computes_the_documented_order():
    expected = np.random.Generator(np.random.Philox(key=[5, 3])).permutation(50).tolist()
    loader = DataLoader(WholeNumbers(50), 8, shuffle=True, seed=5)
    program = (
        "from data_loader.dataloader import DataLoader\n"
        "loader = DataLoader([(i, i) for i in range(50)], 8, shuffle=True, seed=5, prefetch=0)\n"
        "for batch in loader.batches(3):\n"
        "    print(*batch['inputs'][batch['weight'] > 0])\n"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "42"}
    other = subprocess.check_output([sys.executable, "-c", program], cwd=ROOT, env=environment)
    assert real(loader.batches(3)) == expected == [int(number) for number in other.split()]


@few(max_examples=40)
@given(st.integers(2, 80), st.data(), st.integers(0, 99), st.integers(1, 9))
def test_training_and_validation_split_the_data_set(examples, data, seed, epoch):
    count = data.draw(st.integers(1, examples - 1))
    share = data.draw(st.sampled_from([count, count / examples]))
    batch_size = data.draw(st.integers(1, examples - count))
    loader = DataLoader(WholeNumbers(examples), batch_size, True, seed, validation_split=share)
    train, held_out = real(loader.batches(epoch)), real(loader.validation().batches(epoch))
    assert loader.validation().examples == len(held_out) == count
    assert loader.examples == len(train) == examples - count
    assert sorted(train + held_out) == list(range(examples))
    assert held_out == sorted(held_out) == real(loader.validation().batches(epoch + 1))
    assert {len(batch["weight"]) for batch in loader.validation().batches(1)} == {batch_size}


def test_the_split_depends_on_the_seed_and_is_made_only_on_request():
    def held_out(seed):
        return real(DataLoader(Numbers(100), 5, True, seed, 0.1).validation().batches(1))

    assert held_out(1) == held_out(1) != held_out(2)
    assert DataLoader(Numbers(100), 5).validation() is None
    assert DataLoader(Numbers(100), 5, validation_split=0.1).validation().validation() is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0; expected a whole number of at least 1"),
        ({"batch_size": 2.0}, r"batch_size is 2\.0"),
        ({"batch_size": True}, "batch_size is True"),
        ({"batch_size": "8"}, "batch_size is '8'"),
        ({"batch_size": 101}, "batch_size is 101, but there are only 100 examples"),
        ({"batch_size": 91, "validation_split": 10}, "only 90 examples"),
        ({"seed": -1}, "seed is -1"),
        ({"prefetch": -1}, "prefetch is -1"),
        ({"workers": 1.5}, r"workers is 1\.5"),
        ({"workers": 2, "worker_kind": "fibre"}, "worker_kind is 'fibre'; expected 'thread' or"),
        ({"validation_split": 100}, "validation_split is 100"),
        ({"validation_split": 1.0}, r"validation_split is 1\.0"),
        ({"validation_split": -0.1}, r"validation_split is -0\.1"),
        ({"validation_split": 0.001}, r"validation_split is 0\.001"),
        ({"validation_split": 0.999}, r"validation_split is 0\.999"),
        ({"validation_split": float("nan")}, "validation_split is nan"),
        ({"validation_split": True}, "validation_split is True"),
        ({"validation_split": "a tenth"}, "validation_split is 'a tenth'"),
        ({"validation_split": None}, "validation_split is None"),
    ],
)
def test_arguments_out_of_range_are_refused_by_name(arguments, message):
    with pytest.raises(UserError, match=message):
        DataLoader(Numbers(100), **{"batch_size": 10, **arguments})


def test_an_empty_data_set_is_refused():
    with pytest.raises(UserError, match="only 0 examples"):
        DataLoader(Numbers(0), 1)


def test_workers_that_would_be_idle_are_refused():
    with pytest.raises(UserError, match="__getitems__"):
        DataLoader(WholeNumbers(10), 2, workers=2)


# ---- Reading a batch


def test_a_custom_loader_needs_only_read():
    class Squares(BaseDataLoader):
        def read(self, indices):
            x = self.dataset[indices]
            return {"inputs": x, "targets": x**2}

    batches = list(Squares(np.arange(10.0), 4).batches(1))
    assert batches[-1]["targets"].tolist() == [64, 81, 0, 1]
    assert batches[-1]["weight"].tolist() == [1, 1, 0, 0]


@pytest.mark.parametrize("kind", ["thread", "process"])
def test_workers_give_the_same_batches_as_none(kind):
    def epochs(**arguments):
        loader = DataLoader(Numbers(30), 8, True, validation_split=9, **arguments)
        return [listed(x.batches(e, 1)) for x in (loader, loader.validation()) for e in (1, 2)]

    assert epochs(workers=2, worker_kind=kind) == epochs(prefetch=0)


def test_whole_batches_equal_stacked_samples():
    whole = DataLoader(WholeNumbers(30), 8, True).batches(1)
    stacked = DataLoader(WholeNumbers(30), 8, True, collate=collate).batches(1)
    for one, other in zip(whole, stacked, strict=True):
        for name in ("inputs", "targets", "weight"):
            np.testing.assert_array_equal(one[name], other[name])
            assert one[name].dtype == other[name].dtype


def test_collate_stacks_dicts_of_inputs_and_names_those_of_different_shapes():
    batch = collate([({"tokens": [1, 2], "length": 2}, 0.5), ({"tokens": [3, 4], "length": 1}, 1)])
    assert batch["inputs"]["tokens"].tolist() == [[1, 2], [3, 4]]
    assert batch["inputs"]["length"].tolist() == [2, 1]
    assert batch["targets"].tolist() == [0.5, 1]
    with pytest.raises(UserError, match=r"inputs\.tokens .* shapes \(1,\) and \(2,\)"):
        collate([({"tokens": [1, 2]}, 0), ({"tokens": [3]}, 0)])


def test_a_custom_collate_may_weigh_positions_and_padding_has_weight_0():
    def pad(samples):
        tokens = np.zeros((len(samples), 3))
        weight = np.zeros((len(samples), 3))
        for row, (number, _) in enumerate(samples):
            tokens[row, : int(number[0]) % 4] = number[0]
            weight[row, : int(number[0]) % 4] = 0.5
        return {"inputs": tokens, "targets": tokens, "weight": weight}

    *_, last = DataLoader(WholeNumbers(6), 4, collate=pad).batches(1)
    assert last["weight"].dtype == np.float32
    assert last["weight"].tolist() == [[0, 0, 0], [0.5, 0, 0], [0, 0, 0], [0, 0, 0]]
    assert last["inputs"][:, 0].tolist() == [0, 5, 0, 1]


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda samples: samples, "a batch is a list"),
        (
            lambda samples: {"input": 1, "targets": 2},
            r"a batch has the keys \['input', 'targets'\]",
        ),
        (lambda samples: {**collate(samples), "weight": np.ones(3)}, r"weight .* \(3,\)"),
        (lambda samples: {**collate(samples), "weight": 1.0}, r"weight .* \(\)"),
    ],
)
def test_a_collate_that_makes_no_batch_raises_an_error_with_what_is_expected(made, message):
    with pytest.raises(UserError, match=message):
        next(DataLoader(Numbers(4), 4, collate=made).batches(1))


# ---- Threads and processes


@pytest.mark.parametrize(
    "arguments",
    [
        {"prefetch": 0},
        {"prefetch": 3},
        {"workers": 2},
        {"workers": 1, "prefetch": 0, "worker_kind": "process"},
    ],
)
def test_an_exception_while_reading_is_raised_at_its_batch_and_leaves_no_thread(arguments):
    before = set(threading.enumerate())
    loader = DataLoader(Failing(20), 4, **arguments)
    batches = loader.batches(1)
    assert next(batches)["targets"].tolist() == [0, -1, -2, -3]
    with pytest.raises(ZeroDivisionError, match="example 7 is odd"):
        next(batches)
    assert list(batches) == []
    assert len(list(loader.batches(1, start=2))) == 3  # the loader is still good
    del batches, loader
    gc.collect()
    assert wait_until(lambda: set(threading.enumerate()) <= before)


def test_an_abandoned_iterator_leaves_no_thread():
    before = set(threading.enumerate())
    loader = DataLoader(Numbers(1000), 2, prefetch=5)
    for _ in loader.batches(1):
        break
    assert set(threading.enumerate()) == before
    batches = loader.batches(1)
    next(batches)
    assert set(threading.enumerate()) > before
    batches.close()
    assert set(threading.enumerate()) == before


def test_reading_stays_no_further_ahead_than_prefetch():
    class Counting(BaseDataLoader):
        started = 0

        def read(self, indices):
            self.started += 1
            return {"inputs": indices, "targets": indices}

    loader = Counting(Numbers(100), 1, prefetch=3)
    batches = loader.batches(1)
    for done in range(1, 5):
        next(batches)
        time.sleep(0.05)
        assert loader.started == done + 3


@pytest.mark.parametrize("kind", ["thread", "process"])
def test_workers_end_with_their_loader(kind):
    before = set(threading.enumerate())
    loader = DataLoader(Numbers(20), 4, workers=2, worker_kind=kind)
    list(loader.batches(1))
    workers = multiprocessing.active_children()
    assert len(workers) == (2 if kind == "process" else 0)
    del loader
    gc.collect()
    assert wait_until(lambda: set(threading.enumerate()) <= before)
    for worker in workers:
        worker.join(5)
        assert worker.exitcode == 0


def test_workers_end_with_a_killed_parent_and_ignore_interrupts(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(
        "import multiprocessing, time\n"
        "from data_loader.dataloader import DataLoader\n"
        "if __name__ == '__main__':\n"
        "    pairs = [(i, i) for i in range(20)]\n"
        "    loader = DataLoader(pairs, 4, workers=2, worker_kind='process')\n"
        "    next(loader.batches(1))\n"
        "    print(*[p.pid for p in multiprocessing.active_children()], flush=True)\n"
        "    time.sleep(1)\n"
        "    list(loader.batches(2))\n"
        "    print('a second epoch', flush=True)\n"
        "    time.sleep(60)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, script],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    with parent:
        try:
            workers = [int(pid) for pid in parent.stdout.readline().split()]
            assert len(workers) == 2
            assert all(wait_until(functools.partial(ignores_interrupts, pid)) for pid in workers)
            for worker in workers:
                os.kill(worker, signal.SIGINT)
            assert parent.stdout.readline() == "a second epoch\n"
            assert all(map(alive, workers))
        finally:
            parent.kill()
    assert wait_until(lambda: not any(map(alive, workers)))


def ignores_interrupts(pid):
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    status = dict(line.split(":", 1) for line in lines)
    return bool(int(status["SigIgn"], 16) & 1 << (signal.SIGINT - 1))


def alive(pid):
    """Whether a process runs; one that ended but was not yet waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_worker_process_that_dies_raises_a_clear_error():
    with pytest.raises(UserError, match=r"DataLoader\(Dying\): a worker process died"):
        list(DataLoader(Dying(8), 4, workers=1, worker_kind="process").batches(1))


def test_a_data_set_that_cannot_be_sent_to_a_process_is_refused_at_once():
    dataset = Numbers(8)
    dataset.transform = lambda x: x
    with pytest.raises(UserError, match="cannot be sent to a worker process"):
        DataLoader(dataset, 4, workers=1, worker_kind="process")


# ---- IDX files


def idx(array):
    """Returns the bytes of an IDX file, written independently of the reader."""
    header = struct.pack(">BBBB", 0, 0, 8, array.ndim) + struct.pack(
        f">{array.ndim}I", *array.shape
    )
    return header + array.astype(np.uint8).tobytes()


def write_pair(folder, images, labels, start="train-", packed=False):
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in [
        (f"{start}images-idx3-ubyte", images),
        (f"{start}labels-idx1-ubyte", labels),
    ]:
        data = idx(np.asarray(array))
        (folder / (name + packed * ".gz")).write_bytes(compress(data) if packed else data)


IMAGES = np.random.default_rng(0).integers(0, 256, (5, 4, 3), dtype=np.uint8)


@pytest.mark.parametrize("name", idx_files.CHECKSUMS["mnist"])
def test_the_mnist_files_in_data_have_the_published_checksums(name):
    content = gzip.decompress((ROOT / "data" / f"{name}.gz").read_bytes())
    assert hashlib.md5(content).hexdigest() == idx_files.CHECKSUMS["mnist"][name]


def test_mnist_has_its_known_values():
    train, test = IdxImages(ROOT / "data", "train", "mnist"), IdxImages(ROOT / "data", "test")
    assert (len(train), len(test)) == (60000, 10000)
    assert train.images.shape == (60000, 1, 28, 28)
    assert train.images.dtype == np.uint8
    assert train.labels.dtype == np.int32
    assert train.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert train.classes == list("0123456789")
    assert train.images.mean() / 255 == pytest.approx(0.1307, abs=1e-4)  # the well-known value
    images, labels = train.__getitems__(np.array([3, 1]))
    np.testing.assert_array_equal(images[0], train[3][0])
    assert labels.tolist() == [1, 0]
    assert len(DataLoader(train, 512)) == 118


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("start", "split"),
    [
        ("train-", "train"),
        ("t10k-", "test"),
        ("emnist-letters-test-", "test"),
        ("my_train-", "train"),
    ],
)
def test_idx_files_may_have_any_prefix_and_be_gzipped(tmp_path, start, split, packed):
    write_pair(tmp_path, IMAGES, [0, 3, 2, 0, 1], start, packed)
    dataset = IdxImages(tmp_path, split, download="mnist")  # nothing is missing to download
    np.testing.assert_array_equal(dataset.images[:, 0], IMAGES)
    assert dataset.labels.tolist() == [0, 3, 2, 0, 1]
    assert dataset.classes == ["0", "1", "2", "3"]


def test_a_folder_may_contain_a_file_both_gzipped_and_not(tmp_path):
    for packed in (False, True):
        write_pair(tmp_path, IMAGES, range(5), packed=packed)
    assert len(IdxImages(tmp_path, "train")) == 5


def test_several_data_sets_in_one_folder_raise_an_error_that_names_them(tmp_path):
    for start in ("emnist-letters-train-", "emnist-digits-train-"):
        write_pair(tmp_path, IMAGES, range(5), start)
    with pytest.raises(UserError, match=r"emnist-digits-train-images.* and emnist-letters-train"):
        IdxImages(tmp_path, "train")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda d: None, "no such folder, so there is no train-images-idx3-ubyte and train-labels"),
        (lambda d: d.mkdir(), "has no train-images-idx3-ubyte and train-labels-idx1-ubyte"),
        (lambda d: d.write_text("a file"), "no such folder"),
        (
            lambda d: (write_pair(d, IMAGES, range(5)), (d / PAIR[1]).unlink()),
            "has no train-labels-idx1-ubyte; expected",
        ),
        (lambda d: write_pair(d, IMAGES, range(4)), "4 labels for the 5 images in"),
        (lambda d: write_pair(d, IMAGES[0], range(4)), "bytes 00000802; expected 00000803"),
        (lambda d: write_pair(d, IMAGES[:0], []), r"shape \(0, 4, 3\)"),
    ],
)
@pytest.mark.parametrize("named", [str, Path])
def test_files_that_are_missing_or_do_not_fit_are_named(tmp_path, make, message, named):
    folder = tmp_path / "own"
    make(folder)
    with pytest.raises(UserError, match=message) as error:
        IdxImages(named(folder), "train")
    assert str(folder) in str(error.value)


@pytest.mark.parametrize(
    ("split", "download"), [("validation", None), ("train", "mnits"), (3, None)]
)
def test_unknown_splits_and_sources_are_refused(split, download):
    with pytest.raises(UserError, match=r"is .*; expected .*(train|mnist)"):
        IdxImages(ROOT / "data", split, download)


GOOD = idx(IMAGES)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"bytes \(none\); expected 00000803"),
        (b"\x1f\x8b", "cannot be read"),
        (GOOD[:10], "whole header"),
        (GOOD[:-1], r"claims the shape \(5, 4, 3\), but not 60 bytes follow"),
        (GOOD + b"\0", "but not 60 bytes"),
        (compress(GOOD[:-1]), "but not 60 bytes"),
        (compress(GOOD + b"\0"), "but not 60 bytes"),
        (compress(GOOD)[:-9], "cannot be read"),
        (compress(GOOD)[:-8] + bytes(8), "CRC"),
        (compress(GOOD) + b"more", "cannot be read"),
        (b"<html>Sign in to the network</html>", "bytes 3c68746d"),
        (GOOD[:2] + b"\x0d" + GOOD[3:], "bytes 00000d03"),
        (GOOD[:4] + b"\xff" * 12, "claims the shape"),
        (compress(GOOD[:4] + b"\xff" * 12), "claims the shape"),
        (compress(GOOD[:4] + struct.pack(">3I", 100, 100, 10)), "claims the shape"),
    ],
)
def test_a_broken_idx_file_raises_an_error_with_the_reason(tmp_path, content, message):
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        idx_files.read_idx(path, 3)
    assert str(path) in str(error.value)


@few(max_examples=300)
@given(st.data(), st.booleans(), st.booleans())
def test_a_mutated_idx_file_is_read_or_refused(tmp_path, data, packed, repacked):
    content = bytearray(compress(GOOD) if packed else GOOD)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content)))
        length = data.draw(st.integers(0, 6))
        content[at : at + length] = data.draw(st.binary(max_size=6))
    path = tmp_path / "mutated"
    path.write_bytes(compress(content) if repacked and not packed else content)
    try:
        array = idx_files.read_idx(path, 3)
    except UserError as error:
        array, message = None, str(error)
    if array is None:
        assert str(path) in message
    else:
        assert array.ndim == 3
        assert 0 < array.size <= len(content) + 60


@pytest.mark.parametrize("claim", [(10, 1, 1), (2**12, 2**10, 2**6)])
def test_a_gzip_bomb_takes_no_memory(tmp_path, claim):
    path = tmp_path / "bomb"
    with gzip.open(path, "wb", 1) as file:
        file.write(b"\0\0\x08\x03" + struct.pack(">3I", *claim))
        for _ in range(32 if claim[0] == 10 else 1):
            file.write(bytes(2**20))
    tracemalloc.start()
    try:
        with pytest.raises(UserError, match="claims the shape"):
            idx_files.read_idx(path, 3)
        assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    finally:
        tracemalloc.stop()


# ---- Downloads


class Mirror(http.server.SimpleHTTPRequestHandler):
    """Serves `folder`; records the requested paths in `asked`."""

    folder, asked = None, None

    def translate_path(self, path):
        return str(self.folder / path.strip("/"))

    def do_GET(self):
        self.asked.append(self.path)
        super().do_GET()

    def log_message(self, *_):
        pass


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """Starts real servers on folders, and makes them the only mirrors."""
    servers = []

    def start(*folders):
        handlers = [type("Mirror", (Mirror,), {"folder": f, "asked": []}) for f in folders]
        for handler in handlers:
            servers.append(http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler))
            threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        addresses = [f"http://127.0.0.1:{server.server_port}/" for server in servers]
        monkeypatch.setitem(idx_files.MIRRORS, "mnist", addresses)
        return [handler.asked for handler in handlers]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def names(folder):
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_missing_files_are_downloaded_once_and_only_for_the_split(tmp_path, mirror):
    (asked,) = mirror(ROOT / "data")
    for _ in range(2):
        dataset = IdxImages(tmp_path / "new" / "data", "test", download="mnist")
        assert len(dataset) == 10000
    assert asked == ["/t10k-images-idx3-ubyte.gz", "/t10k-labels-idx1-ubyte.gz"]
    for name in (fetched := names(tmp_path / "new" / "data")):
        expected = (ROOT / "data" / name).read_bytes()
        assert (tmp_path / "new" / "data" / name).read_bytes() == expected
    assert len(fetched) == 2


def test_the_next_mirror_is_used_if_one_lacks_a_file_or_has_a_wrong_one(tmp_path, mirror):
    wrong = tmp_path / "wrong"
    wrong.mkdir()
    (wrong / "t10k-labels-idx1-ubyte.gz").write_bytes(compress(b"something else"))
    asked = mirror(wrong, ROOT / "data")
    assert len(IdxImages(tmp_path / "own", "test", download="mnist")) == 10000
    assert [len(paths) for paths in asked] == [2, 2]


ORIGINAL = (ROOT / "data" / "t10k-images-idx3-ubyte.gz").read_bytes()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (compress(idx(IMAGES)), "expected 2646ac647ad5339dbf082846283269ea"),
        (b"<html>Sign in to the network</html>", "expected 2646ac647ad5339dbf082846283269ea"),
        (ORIGINAL[:-1000], "ended before"),
        (ORIGINAL[:5000] + b"????" + ORIGINAL[5004:], "cannot be read|MD5"),
        (bytes(2**24 + 1), "more than 16777216 bytes"),
    ],
)
def test_a_download_that_is_not_the_original_is_refused_and_leaves_no_file(
    tmp_path, mirror, content, reason
):
    served = tmp_path / "served"
    served.mkdir()
    (served / "t10k-images-idx3-ubyte.gz").write_bytes(content)
    mirror(served)
    with pytest.raises(UserError, match=reason) as error:
        IdxImages(tmp_path / "own", "test", download="mnist")
    assert "t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte" in str(error.value)
    assert names(tmp_path / "own") == []


def test_without_a_network_the_error_names_the_files_and_the_folder(tmp_path, monkeypatch):
    with socket.socket() as free:  # bound, not listening: connecting is refused
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}/"
        monkeypatch.setitem(idx_files.MIRRORS, "mnist", [address, "http://no-such-host.invalid/"])
        with pytest.raises(UserError) as error:
            IdxImages(tmp_path / "own", "train", download="mnist")
    message = str(error.value)
    for part in (*PAIR, str(tmp_path / "own"), address, "refused", "no-such-host.invalid"):
        assert part in message
    assert names(tmp_path / "own") == []


@pytest.mark.parametrize(
    ("begin", "drip", "reason"),
    [
        (b"", b"", "timed out"),
        (b"HTTP", b"", "timed out"),
        (b"HTTP/1.0 200 OK\r\n\r\n", b"", "timed out"),
        (b"HTTP/1.0 200 OK\r\n\r\n", b"x", r"or 0\.5 s"),
        (b"220 a mail server\r\n", b"", "220 a mail server"),
    ],
)
def test_a_mirror_that_is_too_slow_or_speaks_another_protocol_is_given_up(
    tmp_path, monkeypatch, begin, drip, reason
):
    monkeypatch.setattr(idx_files, "READ_TIMEOUT", 0.2)
    monkeypatch.setattr(idx_files, "DOWNLOAD_TIMEOUT", 0.5)
    done = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            connection, _ = server.accept()
            with connection, contextlib.suppress(OSError):
                connection.sendall(begin)
                while not done.wait(0.02):
                    connection.sendall(drip)

        thread = threading.Thread(target=serve)
        thread.start()
        address = f"http://127.0.0.1:{server.getsockname()[1]}/"
        monkeypatch.setitem(idx_files.MIRRORS, "mnist", [address])
        try:
            with pytest.raises(UserError, match=reason):
                IdxImages(tmp_path, "train", download="mnist")
        finally:
            done.set()
            thread.join()
    assert names(tmp_path) == []


def test_half_of_another_data_set_is_not_completed_with_mnist(tmp_path, mirror):
    (asked,) = mirror(ROOT / "data")
    write_pair(tmp_path, IMAGES, range(5), packed=True)
    (tmp_path / f"{PAIR[1]}.gz").unlink()
    with pytest.raises(UserError, match=r"train-images-idx3-ubyte\.gz: is not the file of mnist"):
        IdxImages(tmp_path, "train", download="mnist")
    write_pair(tmp_path / "emnist", IMAGES, range(5), "emnist-train-")
    (tmp_path / "emnist" / "emnist-train-labels-idx1-ubyte").unlink()
    with pytest.raises(UserError, match="has no emnist-train-labels-idx1-ubyte"):
        IdxImages(tmp_path / "emnist", "train", download="mnist")
    assert asked == []


def test_half_of_mnist_is_completed(tmp_path, mirror):
    (asked,) = mirror(ROOT / "data")
    (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(ORIGINAL)
    assert len(IdxImages(tmp_path, "test", download="mnist")) == 10000
    assert asked == ["/t10k-labels-idx1-ubyte.gz"]


def test_a_folder_that_cannot_be_created_is_named(tmp_path, mirror):
    mirror(ROOT / "data")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"file.own: .* missing, and the download failed"):
        IdxImages(tmp_path / "file" / "own", "train", download="mnist")


# ---- Folders of images


def paint(root, height=6, width=5, per_class=3, ending="png"):
    """Writes images of two classes with Pillow, and returns their pixels."""
    painted = np.random.default_rng(1).integers(0, 256, (2, per_class, height, width, 3), np.uint8)
    for name, images in zip(["dog", "cat"], painted, strict=True):
        (root / name).mkdir(parents=True)
        for number, image in enumerate(images):
            Image.fromarray(image).save(root / name / f"{number}.{ending}")
    return painted


def test_images_are_read_by_class_channels_first_and_pixel_by_pixel(tmp_path):
    dogs, cats = paint(tmp_path)
    (tmp_path / "dog" / "notes.txt").write_text("not a picture")
    (tmp_path / ".cache").mkdir()
    dataset = ImageFolder(tmp_path, [6, 5], "RGB")
    assert dataset.classes == ["cat", "dog"]
    assert dataset.labels.tolist() == [0, 0, 0, 1, 1, 1]
    for number, image in enumerate(np.concatenate([cats, dogs])):
        read, label = dataset[number]
        np.testing.assert_array_equal(read, image.transpose(2, 0, 1))
        assert read.dtype == np.uint8
        assert label == number // 3


def test_grey_images_have_one_channel(tmp_path):
    dogs, _ = paint(tmp_path)
    read, _ = ImageFolder(str(tmp_path), (6, 5))[3]
    luma = dogs[0] @ [0.299, 0.587, 0.114]  # ITU-R 601, which Pillow follows
    assert read.shape == (1, 6, 5)
    np.testing.assert_allclose(read[0], luma, atol=1)


@pytest.mark.parametrize("ending", ["png", "jpg", "JPEG"])
def test_images_are_resized(tmp_path, ending):
    ramp = np.linspace(0, 255, 640).astype(np.uint8)
    (tmp_path / "a").mkdir()
    Image.fromarray(np.tile(ramp, (480, 1))).save(tmp_path / "a" / f"ramp.{ending}")
    read, _ = ImageFolder(tmp_path, [12, 16], "RGB")[0]
    assert read.shape == (3, 12, 16)
    expected = ramp.reshape(16, 40).mean(1)
    np.testing.assert_allclose(read, np.broadcast_to(expected, (3, 12, 16)), atol=4)


def test_images_of_16_bits_keep_their_shades(tmp_path):
    (tmp_path / "a").mkdir()
    shades = np.arange(0, 2**16, 2**10, dtype=np.uint16).reshape(8, 8)
    Image.fromarray(shades).save(tmp_path / "a" / "x.png")
    np.testing.assert_array_equal(ImageFolder(tmp_path, [8, 8])[0][0][0], shades // 256)


def test_named_classes_keep_their_labels_in_a_split_that_lacks_one(tmp_path):
    paint(tmp_path)
    dataset = ImageFolder(tmp_path, [6, 5], classes=["bird", "cat", "dog"])
    assert dataset.classes == ["bird", "cat", "dog"]
    assert dataset.labels.tolist() == [1, 1, 1, 2, 2, 2]


def test_shares_of_one_folder_split_the_images_of_each_class(tmp_path):
    paint(tmp_path, per_class=10)
    whole, training, test = (
        ImageFolder(tmp_path, [6, 5], share=share) for share in (None, [0, 0.7], [0.7, 1])
    )
    assert training.labels.tolist() == [0] * 7 + [1] * 7
    assert test.labels.tolist() == [0] * 3 + [1] * 3
    assert sorted(training.paths + test.paths) == whole.paths
    assert training.paths != [*whole.paths[:7], *whole.paths[10:17]]  # not by the alphabet
    assert training.paths == ImageFolder(tmp_path, [6, 5], share=(0, 0.7)).paths


@pytest.mark.parametrize("share", [0.8, [0.8], [0.8, 0.2], [0, 1.5], ["0", "1"], [0, 0.5, 1]])
def test_a_share_is_from_and_to(tmp_path, share):
    paint(tmp_path)
    with pytest.raises(UserError, match=r"share is .*; expected \[from, to\]"):
        ImageFolder(tmp_path, [6, 5], share=share)


@pytest.mark.parametrize("arguments", [{"workers": 3}, {"workers": 1, "worker_kind": "process"}])
def test_images_decoded_in_parallel_are_the_same(tmp_path, arguments):
    paint(tmp_path, ending="jpg")
    dataset = ImageFolder(tmp_path, [8, 8], "RGB")
    expected = DataLoader(dataset, 4, True, prefetch=0).batches(1)
    assert listed(DataLoader(dataset, 4, True, **arguments).batches(1)) == listed(expected)


def test_a_broken_image_is_named_also_from_a_worker(tmp_path):
    paint(tmp_path)
    broken = tmp_path / "dog" / "1.png"
    broken.write_bytes(broken.read_bytes()[:60])
    loader = DataLoader(ImageFolder(tmp_path, [8, 8]), 6, workers=1, worker_kind="process")
    with pytest.raises(UserError, match=r"dog.1\.png: cannot be read as a picture"):
        next(loader.batches(1))


@pytest.mark.parametrize(
    "content", [b"", b"plain text", b"GIF89a" + bytes(50), b"\xff\xd8\xff\xe0"]
)
def test_a_file_that_is_no_image_is_named(tmp_path, content):
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(UserError, match=r"x\.png: cannot be read as a picture: "):
        image_files.read_image(tmp_path / "x.png", (8, 8), "L")


@few(max_examples=150)
@given(st.data(), st.sampled_from(["PNG", "JPEG"]), st.sampled_from(["L", "RGB"]))
def test_a_mutated_image_is_read_or_refused(tmp_path, data, kind, mode):
    stream = io.BytesIO()
    Image.fromarray(IMAGES[0]).resize((20, 20)).save(stream, kind)
    content = bytearray(stream.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content)))
        content[at : at + data.draw(st.integers(0, 6))] = data.draw(st.binary(max_size=6))
    (tmp_path / "x").write_bytes(content)
    try:
        image = image_files.read_image(tmp_path / "x", (9, 7), mode)
    except UserError as error:
        image, message = None, str(error)
    if image is None:
        assert str(tmp_path / "x") in message
    else:
        assert image.shape == (1 if mode == "L" else 3, 9, 7)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda d: d.rmdir(), "no such folder"),
        (lambda d: None, "no folder; expected a folder of pictures per class"),
        (lambda d: (paint(d), (d / "elk").mkdir()), "elk: no picture. Fill or delete"),
    ],
)
def test_folders_that_are_missing_or_empty_are_named(tmp_path, make, message):
    folder = tmp_path / "pictures"
    folder.mkdir()
    make(folder)
    with pytest.raises(UserError, match=message) as error:
        ImageFolder(folder, [8, 8])
    assert str(folder) in str(error.value)


def test_a_folder_that_is_not_in_classes_raises_an_error(tmp_path):
    paint(tmp_path)
    with pytest.raises(UserError, match=r"the folders \['dog'\], not in `classes`"):
        ImageFolder(tmp_path, [8, 8], classes=["cat"])


@pytest.mark.parametrize("size", [8, [8], [8, 0], [8.0, 8], "88", [1, 2, 3], None])
def test_a_size_is_height_and_width(tmp_path, size):
    with pytest.raises(UserError, match=r"size is .*; expected \[height, width\]"):
        ImageFolder(tmp_path, size)


def test_a_mode_is_grey_or_colour(tmp_path):
    with pytest.raises(UserError, match="mode is 'CMYK'; expected 'L' or 'RGB'"):
        ImageFolder(tmp_path, [8, 8], "CMYK")


# ---- On the device


@few(max_examples=10)
@given(st.integers(1, 4), st.booleans())
def test_normalize_equals_numpy(channels, per_channel):
    x = np.random.default_rng(0).integers(0, 256, (3, channels, 5, 4), dtype=np.uint8)
    mean = np.linspace(0.1, 0.5, channels) if per_channel else 0.1307
    std = np.linspace(0.2, 0.3, channels) if per_channel else 0.3081
    columns = [np.reshape(value, (-1, 1, 1)) for value in (mean, std)]
    y = jax.jit(functools.partial(normalize, mean=mean, std=std))(x)
    assert y.dtype == np.float32
    np.testing.assert_allclose(y, (x / 255.0 - columns[0]) / columns[1], rtol=1e-5, atol=1e-6)


def shifted(image, down, right):
    """Returns the image shifted by NumPy: rolled, with the pixels rolled in set to 0."""
    rows, columns = np.indices(image.shape[1:])
    inside = (rows >= down) & (columns >= right)
    inside &= (rows < image.shape[1] + down) & (columns < image.shape[2] + right)
    return np.where(inside, np.roll(image, (down, right), (1, 2)), 0)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("channels", by_set([3], [1, 3]))
def test_random_shift_makes_every_shift_up_to_the_largest_and_no_other(channels, dtype):
    pixels = 2
    x = np.random.default_rng(0).integers(1, 256, (400, channels, 9, 7)).astype(dtype)
    y = np.asarray(jax.jit(random_shift, static_argnums=1)(x, pixels, key=jax.random.key(0)))
    assert y.dtype == dtype
    reach = range(-pixels, pixels + 1)
    shifts = [(down, right) for down in reach for right in reach]
    seen = [[s for s in shifts if (shifted(a, *s) == b).all()] for a, b in zip(x, y, strict=True)]
    assert {len(found) for found in seen} == {1}
    counts = [sum(found[0] == s for found in seen) for s in shifts]
    assert min(counts) > 3  # 16 expected
    assert max(counts) < 40


def test_random_shift_is_a_pure_function_of_its_key():
    x = np.random.default_rng(0).integers(0, 256, (64, 1, 28, 28), dtype=np.uint8)
    before = x.copy()
    first, again, other = (random_shift(x, 3, key=jax.random.key(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(x, before)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    np.testing.assert_array_equal(random_shift(x, 0, key=jax.random.key(0)), x)
