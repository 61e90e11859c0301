"""New projects, made once for the tests of them."""

import pytest

import new_project


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A new project."""
    folder = tmp_path_factory.mktemp("projects") / "my_project"
    assert new_project.main([str(folder), "--title", "Cats and dogs"]) == 0
    return folder


@pytest.fixture(scope="module")
def minimal(tmp_path_factory):
    """A new project without the optional folders."""
    folder = tmp_path_factory.mktemp("projects") / "minimal"
    assert new_project.main([str(folder), "--minimal"]) == 0
    return folder
