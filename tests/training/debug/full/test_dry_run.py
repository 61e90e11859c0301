"""`train.py --check`: a run that is built and tried, and leaves no file."""


def test_check_compiles_nothing_that_the_cache_has(
    config, write_config, script, monkeypatch, tmp_path
):
    def entries_after(folder, *settings):
        monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
        done = script("train.py", "-c", write_config(config), "--check", *settings)
        assert done.returncode == 0, done.stderr
        return {path.name for path in folder.rglob("*-cache")}

    first = entries_after(tmp_path / "cache")
    assert any(name.startswith("jit_step") for name in first)
    assert entries_after(tmp_path / "cache") == first
    assert not entries_after(tmp_path / "other", "training.compilation_cache=false")
