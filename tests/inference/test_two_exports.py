"""Two exports at once: each is made, or one is refused; none removes what another is making."""

import subprocess
import sys

import pytest

from inference.export.atomic_directory import AtomicDirectory, exclusive
from tests.helpers.project import ROOT
from utils import UserError

OWNER = """
import sys, pathlib, time
from inference.export.atomic_directory import AtomicDirectory, exclusive
target = pathlib.Path(sys.argv[1])
with exclusive(target), AtomicDirectory(target) as directory:
    (directory.folder / "file").write_text("half")
    print(directory.folder, flush=True)
    time.sleep(600)
"""


@pytest.fixture
def owner(tmp_path):
    """A process that is making an export, and its temporary folder."""
    command = [sys.executable, "-c", OWNER, tmp_path / "digits"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        yield process, process.stdout.readline().strip()
        process.kill()


def test_a_second_export_of_a_name_is_refused_while_the_first_is_made(owner, tmp_path):
    process, folder = owner
    with (
        pytest.raises(UserError, match="another export of this name is being made"),
        exclusive(tmp_path / "digits"),
    ):
        pass
    with exclusive(tmp_path / "digits.v2"), AtomicDirectory(tmp_path / "digits.v2") as directory:
        (directory.folder / "file").write_text("other")
        directory.publish(good=True)
    assert (tmp_path / folder / "file").read_text() == "half"
    process.kill()
    process.wait()
    with exclusive(tmp_path / "digits"), AtomicDirectory(tmp_path / "digits") as directory:
        (directory.folder / "file").write_text("whole")
        directory.publish(good=True)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["digits", "digits.v2"]


def test_the_name_before_a_dot_is_another_exports(tmp_path):
    with AtomicDirectory(tmp_path / "digits.v2") as running:
        with AtomicDirectory(tmp_path / "digits") as directory:
            directory.publish(good=True)
        assert running.folder.is_dir()
        running.publish(good=True)


def test_an_export_that_was_killed_while_it_replaced_another_loses_nothing(tmp_path):
    (tmp_path / ".digits.previous").mkdir()
    (tmp_path / ".digits.previous" / "file").write_text("first")
    with pytest.raises(KeyError), AtomicDirectory(tmp_path / "digits"):
        raise KeyError
    assert (tmp_path / "digits" / "file").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["digits"]
