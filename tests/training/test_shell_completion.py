"""Shells complete what a config can say: each is asked for it itself."""

import shutil
import subprocess

import pytest

from training.shell_completion import script

ASK = """
COMP_LINE=$2 COMP_POINT=${#2}
source "$1"
_config_keys
printf '%s\\n' "${COMPREPLY[@]}"
"""
CASES = {
    "python train.py training.epo": "training.epochs=",
    "python train.py seed=1 model.args.feat_": "model.args.feat_dims=",
    "python -m training.sweep training.loss=cross_e": "training.loss=cross_entropy",
}


def ask(shell, tmp_path, line):
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} on this machine")
    path = tmp_path / "completion"
    path.write_text(script(shell))
    command = {
        "bash": ["bash", "-c", ASK, "-", str(path), line],
        "fish": ["fish", "-c", f"source {path}; complete -C '{line}'"],
    }[shell]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert not done.stderr
    return done.stdout.split()


@pytest.mark.parametrize("line", CASES)
@pytest.mark.parametrize("shell", ["bash", "fish"])
def test_a_key_a_name_and_an_argument_are_completed(shell, line, tmp_path):
    offered = ask(shell, tmp_path, line)
    # Bash counts what stands behind "=" as a word of its own.
    wanted = CASES[line].partition("=")[2] or CASES[line] if shell == "bash" else CASES[line]
    assert offered == [wanted]


def test_zsh_can_read_its_script(tmp_path):
    if shutil.which("zsh") is None:
        pytest.skip("no zsh on this machine")
    path = tmp_path / "completion"
    path.write_text(script("zsh"))
    done = subprocess.run(["zsh", "-n", path], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "'training.epochs='" in path.read_text()


@pytest.mark.parametrize("shell", ["bash", "fish"])
def test_another_program_is_left_alone(shell, tmp_path):
    assert ask(shell, tmp_path, "python other.py training.epo") == []


def test_whatever_is_offered_once_complete_is_offered_no_more(tmp_path):
    assert ask("bash", tmp_path, "python train.py training.epochs=") == []


def test_true_false_and_what_is_one_of_a_few_are_offered(tmp_path):
    line = "python train.py data_loader.cache_on_device="
    assert ask("bash", tmp_path, line) == ["auto", "false", "true"]
