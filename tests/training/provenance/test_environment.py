"""The record of what a run depends on: git revision, machine, versions."""

import json
import os
import platform
import subprocess

import numpy as np
import pytest

from training.provenance.record import environment


def test_the_environment_has_the_installed_versions_and_is_json():
    found = json.loads(json.dumps(environment()))
    assert found["packages"]["numpy"] == np.__version__
    assert found["packages"]["pytest"] == pytest.__version__
    assert found["python"] == platform.python_version()
    assert found["processors"] == os.cpu_count()


def test_the_git_revision_says_whether_files_were_changed(tmp_path):
    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false"]
        done = subprocess.run(
            ["git", *identity, *arguments], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    git("init")
    assert environment(tmp_path)["git_revision"] == "unknown"
    (tmp_path / "model.py").write_text("a = 1")
    git("add", "model.py")
    git("commit", "-m", "first")
    git("tag", "-a", "v1", "-m", "one")
    assert environment(tmp_path)["git_revision"] == git("rev-parse", "HEAD")
    (tmp_path / "model.py").write_text("a = 2")
    assert environment(tmp_path)["git_revision"] == git("rev-parse", "HEAD") + "-dirty"


def test_without_git_or_a_repository_the_revision_is_unknown(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert environment(tmp_path)["git_revision"] == "unknown"
    monkeypatch.setenv("PATH", "")
    assert environment()["git_revision"] == "unknown"
