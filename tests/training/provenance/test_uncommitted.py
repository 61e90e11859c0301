"""What uncommitted.diff holds: the code that differs from the last commit, and no secrets."""

import os
import subprocess

import pytest

from training.common.files import atomic_write_text
from training.provenance.record import uncommitted

TOKEN = "hf_" + "a1B2" * 9  # in the form of a token, of nobody


@pytest.fixture
def repository(tmp_path):
    """`git(*arguments)` in a repository with a committed file."""

    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
        subprocess.run(
            ["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True
        )

    git("init")
    for name in ("model.py", ".env", "local/settings.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("before = 1\n")
    git("add", ".")
    git("commit", "-m", "first")
    return git


def test_secrets_and_what_git_ignores_are_left_out_and_named(repository, tmp_path):
    (tmp_path / ".gitignore").write_text("local/\n")  # which was committed before
    for name, text in {
        "model.py": "width = 64", ".env": "PASSWORD=hidden", "local/settings.py": "key = 'hidden'",
        "keys/id_ed25519": "hidden", "aws_credentials.json": "hidden", "staged.pem": "hidden",
        "my code.py": "height = 32", "upload.py": f"token = {TOKEN!r}  # hidden",
        "rsa.txt": "-----BEGIN RSA PRIVATE KEY-----\nhidden", "hf_token": "hidden",
    }.items():  # fmt: skip
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"{text}\n")
    repository("add", ".gitignore", "keys", "aws_credentials.json", "staged.pem", "my code.py",
               "upload.py", "rsa.txt", "hf_token")  # fmt: skip
    found = uncommitted(tmp_path)
    assert "hidden" not in found
    assert "+width = 64" in found
    assert "+height = 32" in found
    for name in (".env", "local/settings.py", "keys/id_ed25519", "aws_credentials.json",
                 "staged.pem", "upload.py", "rsa.txt", "hf_token"):  # fmt: skip
        assert f"# left out: {name!r}" in found


def test_a_secret_that_is_deleted_or_renamed_is_left_out(repository, tmp_path):
    (tmp_path / "model.py").write_text(f"token = '{TOKEN}'\n")
    repository("commit", "-am", "second")
    repository("mv", "model.py", "network.py")
    (tmp_path / ".env").unlink()
    found = uncommitted(tmp_path)
    assert TOKEN not in found
    assert "before" not in found
    assert found.count("# left out") == 3


def test_of_a_folder_in_a_larger_repository_its_own_files_are_shown(repository, tmp_path):
    (tmp_path / "model.py").write_text("other = 1\n")
    (tmp_path / "local" / "settings.py").write_text("width = 64\n")
    found = uncommitted(tmp_path / "local")
    assert "+width = 64" in found
    assert "other" not in found


@pytest.mark.parametrize("git_config", ["diff.noprefix", "diff.mnemonicPrefix", "color.ui"])
def test_settings_of_git_do_not_hide_a_secret_in_the_difference(repository, tmp_path, git_config):
    repository("config", git_config, "always" if git_config == "color.ui" else "true")
    (tmp_path / ".env").write_text("PASSWORD=hidden\n")
    (tmp_path / "model.py").write_text("diff --git a/x b/x\n")
    found = uncommitted(tmp_path)
    assert "hidden" not in found
    assert "+diff --git a/x b/x" in found


def test_a_private_file_is_its_owners_alone_from_the_start(tmp_path):
    before = os.umask(0)
    try:
        atomic_write_text(tmp_path / "file", "text", private=True)
    finally:
        os.umask(before)
    assert os.stat(tmp_path / "file").st_mode & 0o777 == 0o600
