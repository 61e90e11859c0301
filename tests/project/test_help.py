"""`--help` of every command shows how it is typed."""

import importlib

import pytest

COMMANDS = (
    "train", "test", "new_project", "inference.convert_tflite", "inference.predict",
    "inference.demo", "training.sweep", "training.report", "training.report.compare",
    "training.debug.nan", "training.schema", "training.shell_completion", "data_loader.inspect",
)  # fmt: skip
PACKAGES = ("training.sweep", "training.report", "data_loader.inspect")


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_has_an_example_that_is_typed_as_the_command_is(name, capsys):
    module = importlib.import_module(f"{name}.__main__" if name in PACKAGES else name)
    with pytest.raises(SystemExit) as ended:
        module.main(["--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    file = name.replace(".", "/") + ".py"
    is_module = name.startswith(("training", "data_loader"))
    typed = f"python -m {name} " if is_module else f"python {file} "
    usage, _, explained = shown.partition("\n\n")
    assert usage.startswith("usage: ")
    assert typed.strip() in explained
