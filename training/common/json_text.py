"""JSON as a config has it, and values of the command line as a person means them."""

import json
import math
import re

from utils import UserError

LARGEST = 2**20  # characters of a config
DEEPEST = 50  # brackets within brackets
LIMIT = 2**63  # of whole numbers
SHOWN = 60  # characters of a value in a message
CONSTANTS = {"true": True, "false": False, "none": None, "null": None}
TOKENS = re.compile(
    r'"(?:\\.|[^"\\])*"'  # a text
    r"|'(?:\\.|[^'\\])*'"
    r"|[\[\]{},:]"
    r"""|[^\s\[\]{},:"']+"""  # a number, true, false, null, or a word without quotes
    r"|\s+|.",
    re.DOTALL,
)
COLON = re.compile(r"\s*:")
BACKSLASH_HINT = "Write a backslash twice, or a / in its place: C:/data"


class DuplicateKeyError(Exception):
    """An object has a key twice."""


def parse_json(text, where):
    """Returns the value of a JSON text, whose keys are unique and whose numbers are finite.

    Args:
        text: the JSON.
        where: its place, for messages ("config.json").

    Raises:
        UserError: it is JSON, but nothing that a config can hold.
        json.JSONDecodeError: it is no JSON.
    """
    if len(text) > LARGEST:
        raise UserError(f"{shorten(where)}: larger than {LARGEST:,} characters; that is no config")

    def number(text):
        return finite_number(text, where)

    hooks = {"parse_int": number, "parse_float": number, "parse_constant": number}
    try:
        value = json.loads(text, object_pairs_hook=_with_unique_keys, **hooks)
    except RecursionError:
        raise _too_deep(where) from None
    except DuplicateKeyError:
        key, *places = _first_duplicate(text)
        first, second = (f"{line}:{column}" for line, column in places)
        raise UserError(
            f"{shorten(where)}: the key {shorten(key)!r} stands twice, at {first} and at {second} "
            "(line:column); expected it once, as the first would have no effect"
        ) from None
    check_values(value, where)
    return value


NOT_FINITE = ("nan", "inf", "infinity")


def parse_value(text, where):
    """Returns the value that is meant by a text of the command line.

    JSON is read as such. Besides, numbers may be written as in Python (.1, 1., +1, 1_000),
    constants as True and None, and texts within brackets without quotes or with single ones. Any
    other text stands for itself.

    Args:
        text: what stands behind the = of "key.path=value".
        where: the whole, for messages.

    Raises:
        UserError: a number is not finite, brackets do not fit, or a key stands twice.
    """
    try:
        return parse_json(text, where)
    except json.JSONDecodeError as error:
        fault = error.msg.lower()
    text = text.strip()
    inside = text[1:-1].split(",")
    if text[:1] not in ("[", "{"):
        return _word(text, where)
    if text[0] + text[-1] == "[]" and not re.search(r"[\[\]{}\"']", text[1:-1]) and all(inside):
        return [_word(one, where) for one in inside]
    try:
        return parse_json(TOKENS.sub(lambda token: _as_json(token[0], where), text), where)
    except json.JSONDecodeError:
        raise UserError(
            f"{shorten(where)}: not valid JSON: {fault}. Close every bracket and quote; write a "
            """text that begins with a bracket in double quotes: '"[a"'"""
        ) from None


def finite_number(text, where):
    """Returns the number that Python reads in a text.

    Raises:
        UserError: it is not finite, or has more digits than any number to train with.
        ValueError: it is no number.
    """
    plain = text.strip().lstrip("+-").replace("_", "")
    digits = plain.isascii() and plain.isdigit()
    if digits and len(plain.lstrip("0")) <= len(str(LIMIT)):
        value = int(text)
    else:
        value = float(text) if text.isascii() else float("no number")
    if not math.isfinite(value) or (digits and not -LIMIT <= value < LIMIT):
        raise _no_number(text, where)
    return value


def check_values(value, where):
    """Refuses what no config can hold: numbers that are not finite, deep nesting, broken texts."""
    waiting = [(value, 0)]
    while waiting:
        one, depth = waiting.pop()
        if depth > DEEPEST:
            raise _too_deep(where)
        if isinstance(one, dict):
            waiting += [(inner, depth + 1) for pair in one.items() for inner in pair]
        elif isinstance(one, list):
            waiting += [(inner, depth + 1) for inner in one]
        elif isinstance(one, str):
            _check_text(one, where)
        elif isinstance(one, float) and not math.isfinite(one):
            raise _no_number(str(one), where)
        elif isinstance(one, int) and not -LIMIT <= one < LIMIT:
            raise _no_number(f"{float(one):g}" if abs(one) < 1e300 else "a whole number", where)


def shorten(value, length=SHOWN):
    """Returns a value as a short text for a message."""
    text = value if isinstance(value, str) else str(value)
    return text if len(text) <= length else text[: length - 3] + "..."


def _check_text(text, where):
    if re.match(r"[A-Za-z]:[\t\n\r\f\b]", text):
        raise UserError(f"{shorten(where)}: {text!r} is no path. {BACKSLASH_HINT}")
    # From U+DC80 to U+DCFF are the bytes of file names that are not UTF-8.
    if broken := re.search("[\0\ud800-\udc7f\udd00-\udfff]", text):
        raise UserError(
            f"{shorten(where)}: {shorten(text)!r} holds {broken[0]!r}, which is no character of a "
            "text; expected it without"
        )


def _no_number(text, where):
    return UserError(
        f"{shorten(where)}: {shorten(text)} is no number to train with; expected a finite one "
        "(whole ones below 2**63), or double quotes around a text"
    )


def _too_deep(where):
    return UserError(
        f"{shorten(where)}: nested too deeply for a config; expected at most {DEEPEST} levels"
    )


def _with_unique_keys(pairs):
    values = dict(pairs)
    if len(values) < len(pairs):
        raise DuplicateKeyError
    return values


def _first_duplicate(text):
    """Returns the first key that an object has twice, and both its places (line, column)."""
    objects = []  # {key: its start} of each object that is open, {} for a list
    for token in TOKENS.finditer(text):
        if token[0] in ("{", "["):
            objects.append({})
        elif token[0] in ("}", "]"):
            objects.pop()
        elif token[0][0] == '"' and COLON.match(text, token.end()):
            key = json.loads(token[0])
            if key in objects[-1]:
                starts = (objects[-1][key], token.start())
                return key, *((text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at))
                              for at in starts)  # fmt: skip
            objects[-1][key] = token.start()
    raise AssertionError("no key stands twice")


def _word(text, where):
    """The value of a text without brackets and double quotes: a number, a constant, a text."""
    word = text.strip()
    if word.lower() in CONSTANTS:
        return CONSTANTS[word.lower()]
    if len(word) > 1 and word[0] == word[-1] == "'":
        return word[1:-1]
    if word.lstrip("+-").lower() in NOT_FINITE:
        return word  # as a text; whatever expects a number refuses it
    try:
        return finite_number(word, where)
    except ValueError:
        return word


def _as_json(token, where):
    """A token as JSON: words get quotes, single quotes become double ones."""
    if token[0] == "'" or not (token[0] in '"[]{},:' or token.isspace()):
        return json.dumps(_word(token, where))
    return token
