"""Whose code runs when a run folder is opened: this project's runs at once, others' if trusted."""

import importlib.util
import json
import os
import py_compile
import shutil
import sys

import pytest

import test as evaluation
import train
import utils
from tests.helpers.hostile import plant
from training.common import kept_code
from training.engine.load import load


@pytest.fixture
def own(tmp_path):
    """A run of this project, as far as its code is concerned, with some checkpoint."""
    run = tmp_path / "saved" / "title" / "own"
    run.mkdir(parents=True)
    shutil.copy(utils.ROOT / "config.json", run)
    checkpoint = utils.ROOT / "tests" / "fixtures" / "old_run" / "checkpoint-epoch_1.params"
    shutil.copy(checkpoint, run / "checkpoint-best.params")
    importlib.import_module("model.model")
    kept_code.keep_code(run, "model.model")
    return run


@pytest.fixture
def theirs(own, tmp_path):
    """A run with code that leaves `tmp_path / "ran"` behind, signed by the key of another."""
    plant(own / "model" / "__init__.py", tmp_path / "ran")
    key = utils.ROOT / kept_code.KEY
    ours = key.read_bytes()
    key.write_bytes(bytes(32))
    code = {path: (own / path).read_bytes() for path in json.loads(
        (own / kept_code.RECORD).read_text())["files"]}  # fmt: skip
    kept_code.sign(own, code, [])
    key.write_bytes(ours)
    return own


def opened(run, **options):
    """Imports the network of a run, as every command does; returns the message of a refusal."""
    try:
        with kept_code.code_of(run, **options):
            importlib.import_module("model.model")
    except utils.UserError as error:
        return str(error)
    return None


def test_a_run_of_this_project_needs_no_trust_wherever_it_is(own):
    assert opened(own) is None


def test_the_key_of_the_signatures_is_the_users_alone(own):
    key = utils.ROOT / kept_code.KEY
    assert os.stat(key).st_mode & 0o777 == 0o600
    assert len(key.read_bytes()) == 32


def test_a_run_made_elsewhere_names_what_would_run_and_runs_nothing(theirs, tmp_path, capsys):
    commands = [(evaluation.main, "-w"), (train.main, "--resume"), (train.main, "--check --resume")]
    for main, option in commands:
        assert main([*option.split(), str(theirs)]) == 1
        error = capsys.readouterr().err
        for words in ("was made elsewhere", "model/__init__.py", "--trust", "--own-code"):
            assert words in error
    with pytest.raises(utils.UserError, match="was made elsewhere"):
        load(theirs)
    assert not (tmp_path / "ran").exists()


def test_own_code_leaves_the_runs_code_alone(theirs, tmp_path):
    assert opened(theirs, own_code=True) is None
    assert not (tmp_path / "ran").exists()
    assert "was made elsewhere" in opened(theirs)  # it is not trusted by that


def test_a_run_is_trusted_once(theirs, tmp_path):
    assert opened(theirs, trust=True) is None
    assert (tmp_path / "ran").exists()
    assert opened(theirs) is None


def test_a_run_whose_code_has_changed_since_is_asked_for(own, tmp_path):
    plant(own / "model" / "model.py", tmp_path / "ran")
    error = opened(own)
    assert "has changed since" in error
    assert "model/model.py" in error
    assert "model/__init__.py" not in error
    assert not (tmp_path / "ran").exists()


def test_a_run_without_a_signature_but_with_this_projects_code_needs_no_trust(own):
    (own / kept_code.RECORD).unlink()
    assert opened(own) is None


@pytest.mark.parametrize("signed", [True, False])
def test_nothing_but_the_kept_code_is_imported_from_a_run(own, tmp_path, signed):
    if not signed:
        (own / kept_code.RECORD).unlink()
    for name in ("optax.py", "json.py", "sitecustomize.py", "train.py", "training/loss.py",
                 "data_loader/dataloader.py", "__init__.py"):  # fmt: skip
        plant(own / name, tmp_path / "ran")
    for name in ("optax", "json", "training.loss"):
        importlib.import_module(name)
    assert opened(own, trust=not signed) is None
    assert not (tmp_path / "ran").exists()
    assert str(own) not in sys.path


def test_bytecode_beside_the_kept_code_is_not_run(own, tmp_path):
    """Python would take it for that of the source, whose time and size it has."""
    source = own / "model" / "model.py"
    content, times = source.read_bytes(), os.stat(source)
    evil = (f"open({str(tmp_path / 'ran')!r}, 'a').close()\n".encode() + content)[: len(content)]
    source.write_bytes(evil[: evil.rindex(b"\n") + 1].ljust(len(content), b"#"))
    os.utime(source, ns=(times.st_atime_ns, times.st_mtime_ns))
    py_compile.compile(source, importlib.util.cache_from_source(str(source)))
    source.write_bytes(content)
    os.utime(source, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert opened(own) is None
    assert not (tmp_path / "ran").exists()


def test_a_config_that_imports_a_package_is_asked_for_even_with_this_projects_code(own, tmp_path):
    path = own / "config.json"
    config = json.loads(path.read_text())
    config["imports"] = ["os"]
    config["data_loader"]["test"]["args"]["dataset"] = {
        "name": "os:system", "args": [f"touch {tmp_path / 'ran'}"]
    }  # fmt: skip
    path.write_text(json.dumps(config))
    for options in ({}, {"own_code": True}):
        assert "the package os, which its config imports" in opened(own, **options)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "record", [b"", b"{", b"[]", b'{"files": 1}', b"\xff", b"[" * 100_000, b'{"files": {}}',
               b'{"files": {"/etc/passwd": ""}, "imports": [], "signature": 7}'],
)  # fmt: skip
def test_a_record_that_says_anything_is_no_signature(theirs, tmp_path, record):
    (theirs / kept_code.RECORD).write_bytes(record)
    assert "was made elsewhere" in opened(theirs)
    assert not (tmp_path / "ran").exists()


def test_a_run_whose_config_is_a_pipe_is_refused_and_not_read_for_ever(theirs):
    (theirs / "config.json").unlink()
    os.mkfifo(theirs / "config.json")
    assert "config.json: is no file" in opened(theirs)


def test_what_git_ignores_or_may_be_a_secret_is_not_kept(tmp_path, monkeypatch):
    project, run = tmp_path / "project", tmp_path / "run"
    files = ("model/__init__.py", "model/model.py", "model/secrets.py", "model/weights.npz",
             "model/.env", "model/private/keys.py", "model/token_mixer.py")  # fmt: skip
    for name in files:
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text("")
    (project / "model" / "upload.py").write_text(f"KEY = 'AKIA{'7' * 16}'\n")
    (project / ".gitignore").write_text("private/\n")
    os.system(f"git init -q {project}")
    monkeypatch.setattr(utils, "ROOT", project)
    run.mkdir()
    kept_code.keep_code(run, "model.model")
    kept = {path.name for path in (run / "model").rglob("*") if path.is_file()}
    assert kept == {"__init__.py", "model.py", "token_mixer.py"}
