"""Prints a script by which a shell completes the keys and names of a config on a command line.

    source <(python -m training.shell_completion bash)         # or zsh
    python -m training.shell_completion fish | source

Then `python train.py tr<Tab>` offers `training.epochs=`, and `training.loss=<Tab>` the losses. What
it offers is read from training/config.schema.json: print it again after adding a name.
"""

import argparse
import json
import sys

import utils
from training.schema import PATH

PROGRAMS = ("train.py", "training.sweep")  # whose arguments are keys of a config
BASH = """\
_config_keys() {
    COMPREPLY=()
    case " ${COMP_LINE} " in
        %(programs)s) ;;
        *) return ;;
    esac
    local line=${COMP_LINE:0:$COMP_POINT}
    local word=${line##*[[:space:]]} before candidate
    # Bash splits words at "=", and completes only what stands behind it.
    [[ $word == *=* ]] && before=${word%%%%=*}=
    while read -r candidate; do
        [[ $candidate == "$word"?* ]] && COMPREPLY+=("${candidate#"$before"}")
    done <<'KEYS'
%(keys)s
KEYS
}
complete -o nospace -o bashdefault -o default -F _config_keys python python3 train.py ./train.py
"""
ZSH = """\
_config_keys() {
    case " $words " in
        %(programs)s) ;;
        *) _default; return ;;
    esac
    local -a keys
    keys=(
%(keys)s
    )
    compadd -S '' -- $keys
    _files
}
(( $+functions[compdef] )) || { autoload -Uz compinit; compinit; }
compdef _config_keys python python3 train.py ./train.py
"""
FISH = """\
function __config_keys_wanted
    string match -qr -- '%(programs)s' (commandline -opc | string join ' ')
end
for program in python python3 train.py
    complete -c $program -n __config_keys_wanted -a '%(keys)s'
end
"""


@utils.command
def main(argv: list[str] | None = None) -> None:
    """Prints the script of a shell."""
    parser = argparse.ArgumentParser(
        "python -m training.shell_completion", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("shell", choices=("bash", "zsh", "fish"))
    print(script(parser.parse_args(argv).shell), end="")


def script(shell):
    """Returns the script for "bash", "zsh" or "fish"."""
    schema = json.loads(PATH.read_text(encoding="utf-8"))
    keys = sorted({*_keys(schema["properties"], schema["$defs"], "")})
    if shell == "fish":
        programs = "|".join(name.replace(".", r"\.") for name in PROGRAMS)
        return FISH % {"keys": " ".join(keys), "programs": programs}
    programs = "|".join(f'*"{name} "*' for name in PROGRAMS)
    if shell == "zsh":
        return ZSH % {"keys": "\n".join(f"        '{key}'" for key in keys), "programs": programs}
    return BASH % {"keys": "\n".join(keys), "programs": programs}


def _keys(properties, definitions, path):
    """Yields "section.key=" of every key, and "section.key=value" where the values are known."""
    for key, place in properties.items():
        if key == "$schema":
            continue
        yield f"{path}{key}="
        for form in _forms(place, definitions):
            values = [
                *form.get("enum", ()),
                *([False, True] if form.get("type") == "boolean" else ()),
            ]
            yield from (f"{path}{key}={_written(value)}" for value in values)
            yield from _keys(form.get("properties", {}), definitions, f"{path}{key}.")
            for rule in form.get("allOf", ()):  # the arguments of each function of that name
                args = rule["then"]["properties"].get("args", {}).get("properties", {})
                yield from (f"{path}{key}.args.{name}=" for name in args)


def _forms(place, definitions):
    """Yields the schemas that a key's value may follow."""
    if "$ref" in place:
        yield from _forms(definitions[place["$ref"].rpartition("/")[2]], definitions)
    elif "anyOf" in place:
        for one in place["anyOf"]:
            yield from _forms(one, definitions)
    else:
        yield place


def _written(value):
    return value if isinstance(value, str) else json.dumps(value)


if __name__ == "__main__":
    sys.exit(main())
