"""Downloads from mirrors that lack a file, are wrong, slow or absent."""

import contextlib
import http.server
import socket
import threading

import pytest

from data_loader import idx as idx_files
from data_loader.dataloader import IdxImages
from tests.helpers.idx_files import IMAGES, PAIR, compress, idx, write_pair
from tests.helpers.project import ROOT
from utils import UserError


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
