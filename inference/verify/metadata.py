"""The metadata of an exported file, which are used only after they are checked."""

import json

from utils import UserError, printable

LARGEST = 2**22  # bytes
TEXT = (str, type(None))
FIELDS = {  # of what is used: the types it may have; inputs and outputs are described by the file
    "probabilities": TEXT, "title": TEXT, "run": TEXT, "checkpoint": TEXT, "git_revision": TEXT,
    "classes": (list, type(None)), "preprocess": (dict, type(None)),
    "parameters": (int, type(None)), "outputs": (dict,), "value_range": (list, type(None)),
    "output": (dict, type(None)),
}  # fmt: skip
OUTPUT = {"kind": (str,), "name": TEXT, "labels": (list, type(None)), "function": TEXT}
KINDS = ("softmax", "sigmoid", "none")
WORDS = {dict: "an object", list: "a list", str: "a text", int: "a whole number"}
WORDS |= {float: "a number", type(None): "null"}


def parse_metadata(content, where):
    """Returns the metadata as a dict, {} of none.

    Args:
        content: JSON, text or bytes.
        where: the file, for messages.

    Raises:
        UserError: it is no JSON object, or a field that is used is of another type.
    """
    if len(content) > LARGEST:
        raise UserError(f"{where}: metadata of more than {LARGEST:,} bytes")
    try:
        metadata = json.loads(content)
    except (ValueError, RecursionError) as error:  # ValueError: also of UTF-8 and of long numbers
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)[:100]
        raise UserError(f"{where}: its metadata are no JSON ({printable(reason)})") from None
    check_metadata(metadata, where)
    return metadata


def check_metadata(metadata, where):
    """Refuses metadata whose fields are not of their types."""
    _expect(metadata, (dict,), f"{where}: metadata")
    for name, types in FIELDS.items():
        if name in metadata:
            _expect(metadata[name], types, f"{where}: metadata: {name}")
    for name in metadata.get("classes") or ():
        _expect(name, (str,), f"{where}: metadata: classes")
    output = metadata.get("output") or {}
    for name, types in OUTPUT.items() if output else ():
        _expect(output.get(name), types, f"{where}: metadata: output.{name}")
    if output and output["kind"] not in KINDS:
        got = printable(output["kind"])[:60]
        raise UserError(
            f"{where}: metadata: output.kind is {got}; expected one of {', '.join(KINDS)}"
        )
    for name in output.get("labels") or ():
        _expect(name, (str,), f"{where}: metadata: output.labels")
    for limit in metadata.get("value_range") or ():
        _expect(limit, (int, float), f"{where}: metadata: value_range")
    preprocess = metadata.get("preprocess")
    if preprocess:
        for name, types in {"where": (str,), "name": (str,), "args": (dict, list)}.items():
            _expect(preprocess.get(name), types, f"{where}: metadata: preprocess.{name}")


def _expect(value, types, where):
    if not isinstance(value, types) or isinstance(value, bool):
        expected = " or ".join(WORDS[one] for one in types)
        raise UserError(
            f"{where}: expected {expected}, got {printable(repr(value))[:60]}. Export it again"
        )
