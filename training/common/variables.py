"""Variables of a config: "$fold" anywhere in it stands for a value that is given elsewhere.

The whole text "$fold" becomes the value, of any type; "${fold}" within a text becomes its text. One
more dollar makes it literal: "$$fold" is the text "$fold". Any other dollar is one.
"""

import copy
import re

from utils import UserError, nearest

NAME = r"[A-Za-z_]\w*"
WHOLE = re.compile(rf"(\$+)({NAME})")
WITHIN = re.compile(rf"(\$+)\{{({NAME})\}}")


def substitute(values, path):
    """Replaces the variables in a config's nested dicts and lists by those in its "variables".

    Raises:
        UserError: a variable is not given.
    """
    given = values.get("variables", {})
    if not isinstance(given, dict):  # the config's check says so
        return

    def value_of(name, where):
        if name not in given:
            raise UserError(
                f'{path}: {where}: "${name}" is not given{nearest(name, given)}; give it on the '
                f'command line, {name}=0, or as a default in the config, "variables": '
                f'{{"{name}": 0}}. The text itself is written "$${name}"'
            )
        return copy.deepcopy(given[name])

    def text_of(text, where):
        if whole := WHOLE.fullmatch(text):
            return value_of(whole[2], where) if whole[1] == "$" else text[1:]
        return WITHIN.sub(
            lambda one: str(value_of(one[2], where)) if one[1] == "$" else one[0][1:], text
        )

    for key, value in values.items():
        if key != "variables":
            values[key] = _map_texts(text_of, value, key)


def escape(values):
    """Returns a config's nested values so that `substitute` gives these values back."""

    def text_of(text, _):
        return f"${text}" if WHOLE.fullmatch(text) else WITHIN.sub(r"$\g<0>", text)

    kept = {"variables": values["variables"]}
    return {key: _map_texts(text_of, value, key) for key, value in values.items()} | kept


def as_variable(override, values, fields):
    """Returns "fold=1" as "variables.fold=1" if the config has no such key, but says "$fold".

    Args:
        override: "key.path=value".
        values: the config's nested values.
        fields: names of the config's keys.
    """
    name = override.partition("=")[0]
    if name in fields or not re.fullmatch(NAME, name) or "=" not in override:
        return override
    return f"variables.{override}" if name in _names(values) else override


def _names(value):
    """The names of the variables that are used in nested values."""
    if isinstance(value, str):
        found = [*filter(None, [WHOLE.fullmatch(value)]), *WITHIN.finditer(value)]
        return {one[2] for one in found if one[1] == "$"}
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return set().union(*map(_names, inner))


def _map_texts(function, value, where):
    """Returns nested values with a function applied to each text and its place."""
    if isinstance(value, str):
        return function(value, where)
    if isinstance(value, dict):
        return {key: _map_texts(function, one, f"{where}.{key}") for key, one in value.items()}
    if isinstance(value, list):
        return [_map_texts(function, one, f"{where}.{key}") for key, one in enumerate(value)]
    return value
