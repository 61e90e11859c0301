"""Writes training/config.schema.json, by which editors complete and check a config.

    python -m training.schema

A config that begins with `"$schema": "training/config.schema.json"` then has completion, hovering
help and squiggles in any editor that knows JSON Schema (https://json-schema.org). All of it is read
from the code: the keys and their comments from training/config.py, the names from the modules in
which they are looked up, the arguments from the functions' signatures and docstrings. So write it
again when you have added a network, a loss or an argument.
"""

import argparse
import ast
import inspect
import json
import re
from pathlib import Path

from training import config
from training.config import HOMES, Config
from utils import UserError, public_names, resolve, signature_of

PATH = Path(__file__).with_name("config.schema.json")
FORM = {"type": "string", "pattern": r"^[\w.]+:\w[\w.]*$", "description": "package.module:function"}

# What `training.engine.build` hands over itself: how many arguments by position, and which by name.
GIVEN = {
    "model": (1, ("params", "key", "train")),
    "data_loader": (0, ()),
    "sampler": (3, ()),
    "transform": (1, ("key",)),
    "loss": (2, ()),
    "metric": (2, ()),
    "optimizer": (0, ()),
    "tracker": (2, ("step", "size")),
    "output": (1, ()),
    "callback": (1, ()),
    "report": (3, ()),
}
# Which key names what, in whatever section it is.
KINDS = {
    "model": "model", "train": "data_loader", "validation": "data_loader", "test": "data_loader",
    "preprocess": "transform", "augment": "transform", "loss": "loss", "optimizer": "optimizer",
    "metrics": "metric", "trackers": "tracker", "output": "output", "callbacks": "callback",
    "report": "report", "convert": "model",
}  # fmt: skip


def main(argv=None):
    """Writes the file and prints its path."""
    layout = argparse.RawDescriptionHelpFormatter
    program = "python -m training.schema"
    argparse.ArgumentParser(program, description=__doc__, formatter_class=layout).parse_args(argv)
    PATH.write_text(text(), encoding="utf-8")
    print(PATH)


def text():
    """Returns the schema as it stands in the file."""
    return json.dumps(schema(), indent=1, ensure_ascii=False) + "\n"


def schema():
    """Returns the JSON Schema of a config, as nested dicts."""
    result = Config.model_json_schema()
    comments = _comments()
    definitions = result["$defs"]
    for name, section in (("Config", result), *definitions.items()):
        for key, place in section.get("properties", {}).items():
            if key in KINDS:
                section["properties"][key] = place = _named_as(KINDS[key], place)
            place.pop("title", None)  # the key again
            if comments.get((name, key)):
                place["description"] = comments[name, key]
    every = definitions.pop("Callback")["properties"]["every"]
    del definitions["Named"]
    result["properties"]["$schema"] = {"type": "string", "description": "Where this schema is."}
    for kind in HOMES:
        definitions |= _definitions(kind)
    definitions["callback call"]["properties"]["every"] = every
    return result


def offered(kind):
    """Returns {name: function} of the bare names that a config can give for a kind."""
    found = {}
    for home in HOMES[kind]:
        names = public_names(home)
        for name in sorted(set(names) - found.keys()):
            try:
                function = resolve(name, (home,))
            except UserError:  # not a function
                continue
            if not home.startswith("optax") or _of_optax(name, function, kind):
                found[name] = function
    return found


def arguments(function, given=(0, ())):
    """Returns the JSON Schema of a function's arguments but those `given`, as in GIVEN."""
    signature = signature_of(function)
    if signature is None:
        return {}
    parameters = list(signature.parameters.values())
    positional, keywords = given
    free = [one for one in parameters[positional:] if one.name not in keywords]
    varied = {one.kind for one in free}
    free = [one for one in free if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)]
    help_of = _argument_texts(function)
    properties = {one.name: _argument(one, help_of.get(one.name)) for one in free}
    result = {"properties": properties}
    if inspect.Parameter.VAR_KEYWORD not in varied:
        result["additionalProperties"] = False
    required = [one.name for one in free if one.default is one.empty]
    return result | ({"required": required} if required else {})


def _definitions(kind):
    """Of a kind: a name, a call {"name", "args"}, and a value inside arguments."""
    functions = offered(kind)
    value = {
        "if": {
            "type": "object",
            "required": ["name"],
            "properties": {"name": {"type": "string"}, "args": True},
            "additionalProperties": False,
        },
        "then": _reference(kind, "part"),
        "items": _reference(kind, "value"),
    }
    call = _call(functions, kind, GIVEN[kind])
    # To what is an argument itself, such as a learning rate's schedule, nothing is given.
    part = _call(functions, kind) if any(GIVEN[kind]) else _reference(kind, "call")
    names = {"anyOf": [{"enum": sorted(functions)}, FORM]}
    return {f"{kind} {form}": one for form, one in
            (("name", names), ("call", call), ("part", part), ("value", value))}  # fmt: skip


def _call(functions, kind, given=(0, ())):
    """{"name": ..., "args": ...}, the arguments by the name."""
    cases = []
    for name, function in functions.items():
        args = arguments(function, given)
        for argument, one in args.get("properties", {}).items():
            one |= _of_argument(argument, kind)
        summary = (inspect.getdoc(function) or "").partition("\n\n")[0].replace("\n", " ")
        then = {"properties": {"name": {"description": summary}, "args": args}}
        cases.append({"if": {"properties": {"name": {"const": name}}}, "then": then})
    return {
        "type": "object",
        "required": ["name"],
        "properties": {"name": _reference(kind, "name"), "args": {"type": ["object", "array"]}},
        "additionalProperties": False,
        "allOf": cases,
    }


def _named_as(kind, place):
    """The schema of a key that names something, in place of pydantic's."""
    if kind == "transform" and "items" in place:  # one, or a list
        choices = [_reference(kind, "call"), _reference(kind, "name")]
        several = {"type": "array", "items": {"anyOf": choices}}
        return {"anyOf": [*choices, several, {"type": "null"}], "default": None}
    if "items" in place:
        return place | {"items": {"anyOf": [_reference(kind, "call"), _reference(kind, "name")]}}
    if kind == "data_loader":  # needs its arguments: no bare name
        call = _reference(kind, "call")
        return {"anyOf": [call, {"type": "null"}], "default": None} if "default" in place else call
    choices = [_reference(kind, "call"), _reference(kind, "name")]
    if "default" in place:
        return {"anyOf": [*choices, {"type": "null"}], "default": place["default"]}
    return {"anyOf": choices}


def _reference(kind, form):
    return {"$ref": f"#/$defs/{kind} {form}"}


def _of_argument(name, kind):
    """The schema of an argument's value: of a sampler also its name, or weights."""
    if name != "sampler" or kind != "data_loader":
        return _reference(kind, "value")
    weights = [
        {"type": "array", "items": {"type": "number"}},
        {"type": "string", "pattern": "npy$"},
    ]
    named = [_reference("sampler", form) for form in ("name", "call")]
    return {"anyOf": [*named, *weights, {"type": "null"}]}


def _argument(parameter, text):
    result = {"description": text.partition(". ")[0]} if text else {}
    if parameter.default is None or isinstance(parameter.default, bool | int | float | str):
        result["default"] = parameter.default
    return result


def _argument_texts(function):
    """{name: text} of the arguments, from the "Args" of a docstring."""
    lines = (inspect.getdoc(function) or "").splitlines()
    texts, name = {}, None
    for line in lines[lines.index("Args:") + 1 if "Args:" in lines else len(lines) :]:
        if line and not line.startswith(" "):
            break
        start = re.match(r" {2,4}(\w[\w, ]*):\s*(.*)", line)
        if start:
            name, words = start.groups()
            texts |= dict.fromkeys(re.split(r",\s*", name), words)
        elif name and line.strip():
            for one in re.split(r",\s*", name):
                texts[one] += " " + line.strip()
    return texts


def _comments():
    """{(section, key): comment} of training/config.py: beside the key, or else above it."""
    source = Path(config.__file__).read_text(encoding="utf-8")
    lines, found = source.splitlines(), {}
    for section in ast.parse(source).body:
        for field in getattr(section, "body", []):
            if not isinstance(field, ast.AnnAssign):
                continue
            beside = [
                line.partition("  # ")[2] for line in lines[field.lineno - 1 : field.end_lineno]
            ]
            above, at = [], field.lineno - 2
            while lines[at].strip().startswith("# "):
                above.insert(0, lines[at].strip("# "))
                at -= 1
            found[section.name, field.target.id.rstrip("_")] = " ".join(
                filter(None, beside)
            ) or " ".join(above)
    return found


def _of_optax(name, function, kind):
    """Whether this is of use: optax has losses, optimizers and much else in one namespace."""
    import optax.losses

    if kind == "loss":
        return hasattr(optax.losses, name)
    returned = getattr(function, "__annotations__", {}).get("return")
    makes = (optax.GradientTransformation, optax.GradientTransformationExtraArgs, optax.Schedule)
    return (
        returned in makes
        or "GradientTransformation" in str(returned)
        or name.startswith("scale_by")
    )


if __name__ == "__main__":
    main()
