"""`train.py --check`: a run that is built and tried, and leaves no file."""

import re


def test_check_builds_everything_and_leaves_no_file(run, config, capsys, tmp_path):
    code, folder = run("--check")
    assert (code, folder) == (0, None)
    out = capsys.readouterr().out
    assert re.search(r"hidden0 +\(128, 16\) +0\.008 +12,560", out)
    assert re.search(r"parameters +12,730", out)
    assert re.search(r"update +loss \d", out)
    assert "All is well." in out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json"]


def test_a_config_is_refused_before_jax_is_imported(config, write_config, script):
    config["model"]["name"] = "no_such_network"
    for option in ([], ["--check"]):
        arguments = ["-c", write_config(config), *option]
        code = f"import sys, train; print(train.main({arguments!r}), 'jax' in sys.modules)"
        done = script("-c", code)
        assert done.stdout == "1 False\n", option
        assert "no model 'no_such_network'" in done.stderr
