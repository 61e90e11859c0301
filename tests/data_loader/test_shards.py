"""Tar files as a stream."""

import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from data_loader.dataloader import DataLoader
from data_loader.images import read_image
from data_loader.sources.shards import TarShards
from utils import UserError

PER_SHARD = 7


def png(value):
    file = io.BytesIO()
    Image.new("RGB", (4, 4), (value, 0, 0)).save(file, format="PNG")
    return file.getvalue()


def write_tar(path, files, kind=tarfile.PAX_FORMAT):
    with tarfile.open(path, "w", format=kind) as tar:
        for name, content in files:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


@pytest.fixture
def shards(tmp_path):
    """Three tar files of seven pictures each; picture i is red to the degree i, its class i % 3."""
    for shard in range(3):
        files = []
        for index in range(shard * PER_SHARD, (shard + 1) * PER_SHARD):
            # One name is longer than a tar header holds.
            name = f"{'long/' * 40 if index == 10 else 'part/'}{index:04}"
            files += [(f"{name}.png", png(index)), (f"{name}.cls", b"%d\n" % (index % 3))]
            files.append((f"{name}.json", json.dumps([index, 2.5]).encode()))
        write_tar(
            tmp_path / f"s-{shard}.tar", files, [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT][shard % 2]
        )
    return tmp_path


def loader_of(folder, batch_size=4, **named):
    data = TarShards(f"{folder}/s-*.tar", "png", "cls", size=[4, 4])
    return DataLoader(data, batch_size, **named)


def seen(batches):
    """The number of each picture, padding left out, in order; its class is compared."""
    found = []
    for batch in batches:
        for image, label, weight in zip(
            *(batch[k] for k in ("inputs", "targets", "weight")), strict=True
        ):
            if weight:
                assert label == image[0, 0, 0] % 3
                found.append(int(image[0, 0, 0]))
    return found


@pytest.mark.parametrize("workers", [{}, {"workers": 2}])
def test_every_picture_is_read_once_in_order(shards, workers):
    loader = loader_of(shards, **workers)
    assert len(loader.dataset) == 21
    assert len(loader) == 6
    assert seen(loader.batches(1)) == list(range(21))


def test_an_image_is_read_as_in_a_folder(shards):
    data = TarShards(f"{shards}/s-0.tar", "png", "json", size=[4, 4])
    image, target = data.decode(next(iter(data)))
    np.testing.assert_array_equal(image, read_image(io.BytesIO(png(0)), (4, 4), "RGB"))
    assert target.tolist() == [0, 2.5]


@pytest.mark.parametrize("window", [1, 3, 100])
def test_a_shuffled_epoch_resumes_at_every_batch_from_a_file_and_an_offset(shards, window):
    arguments = {"shuffle": True, "seed": 5, "shuffle_window": window}
    trained = loader_of(shards, **arguments)
    whole = {epoch: seen(trained.batches(epoch)) for epoch in (1, 2)}
    assert sorted(whole[1]) == sorted(whole[2]) == list(range(21))
    assert whole[1] != whole[2]
    for epoch in (1, 2):
        for start in range(len(trained) + 1):
            resumed = loader_of(shards, **arguments)
            resumed.restore(json.loads(json.dumps(trained.position(epoch, start))))
            assert seen(resumed.batches(epoch, start)) == whole[epoch][4 * start :]
    shard, offset = trained.position(2, 5)[3]
    assert 0 <= shard < 3
    assert offset % 512 == 0


def test_files_are_shuffled_as_wholes(shards):
    order = seen(loader_of(shards, shuffle=True, shuffle_window=1).batches(1))
    blocks = [order[at : at + PER_SHARD] for at in (0, 7, 14)]
    assert [block == list(range(block[0], block[0] + PER_SHARD)) for block in blocks] == [True] * 3


def test_a_function_of_ones_own_decodes(shards):
    def decode(files):
        assert sorted(files) == ["cls", "json", "png"]
        return np.float32(json.loads(files["json"])), np.int32(files["cls"])

    data = TarShards(f"{shards}/s-*.tar", decode=decode)
    batches = list(DataLoader(data, 21).batches(1))
    assert batches[0]["inputs"][:, 0].tolist() == list(range(21))


def good(name="a"):
    return [(f"{name}.png", png(1)), (f"{name}.cls", b"1")]


def refusal(folder):
    with pytest.raises(UserError) as caught:
        list(loader_of(folder, batch_size=1).batches(1))
    return str(caught.value)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([("a.png", png(1))], "a: has the files ['png'], none of them cls"),
        ([*good(), ("b.cls", b"1")], "b: has the files ['cls'], none of them png"),
        ([("a.png", png(1)), *good("b"), ("a.cls", b"1")], "a: has the files ['png']"),
        ([("a.png", png(1)), ("a.png", png(1)), ("a.cls", b"1")], "a.png is in it twice"),
        ([("a.png", png(1)), ("a.cls", b"one")], "a.cls: cannot be read as cls"),
        ([("a.png", png(1)), ("a.cls", b"9" * 30)], "a.cls: cannot be read as cls"),
        ([("a.png", b"no picture"), ("a.cls", b"1")], "s-0.tar: a.png: "),
        ([], "there are only 0 examples"),
    ],
)
def test_an_example_that_is_not_whole_is_refused_by_name(files, message, tmp_path):
    write_tar(tmp_path / "s-0.tar", files)
    assert message in refusal(tmp_path)


def test_json_that_is_nested_too_deeply_is_refused(tmp_path):
    write_tar(tmp_path / "s.tar", [("a.png", png(1)), ("a.json", b"[" * 100_000)])
    data = TarShards(f"{tmp_path}/s.tar", "png", "json", size=[4, 4])
    with pytest.raises(UserError, match=r"a\.json: cannot be read as json"):
        data.decode(next(iter(data)))


def test_company_of_macos_is_no_example(tmp_path):
    write_tar(tmp_path / "s-0.tar", [("._a.png", b"x"), ("._a.cls", b"x"), *good()])
    data = TarShards(f"{tmp_path}/s-0.tar", "png", "cls", size=[4, 4])
    assert len(data) == 1


def test_a_damaged_file_is_named_and_loses_no_example_silently(shards):
    path = shards / "s-1.tar"
    whole = path.read_bytes()
    header = whole.index(b"0009.png")  # the header of an example in the middle
    end = len(whole.rstrip(b"\0"))
    damages = {
        "header": whole[:header] + b"\xff" * 200 + whole[header + 200 :],
        "cut within a file": whole[: header + 700],
        "cut between files": whole[: header - header % 512],
        "no end": whole[: -(-end // 512) * 512],
        "two in one": whole + (shards / "s-2.tar").read_bytes(),
        "other": b"this is a text, not a tar file" * 100,
        "empty": b"",
        "compressed": b"\x1f\x8b" + whole,
    }
    for name, content in damages.items():
        path.write_bytes(content)
        assert "s-1.tar: " in refusal(shards), name
    path.unlink()
    with pytest.raises(UserError, match=r"s-1\.tar: no such file"):
        TarShards(str(path))


def test_links_are_refused(tmp_path):
    with tarfile.open(tmp_path / "s-0.tar", "w") as tar:
        info = tarfile.TarInfo("a.png")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(info)
    assert "a.png is a link or sparse" in refusal(tmp_path)


def test_an_array_in_a_file_is_not_unpickled(tmp_path):
    file = io.BytesIO()
    np.save(file, np.array([{}], dtype=object), allow_pickle=True)
    write_tar(tmp_path / "s-0.tar", [("a.npy", file.getvalue()), ("a.cls", b"1")])
    data = TarShards(f"{tmp_path}/s-0.tar", "npy", "cls")
    with pytest.raises(UserError, match=r"a\.npy: cannot be read as npy"):
        data.decode(next(iter(data)))
