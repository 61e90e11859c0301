"""Configs changed anywhere: read or refused in words, and checked without a traceback."""

import contextlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.project import ROOT
from training.config import read_config
from training.debug.dry_run import check
from utils import UserError

CONFIGS = [ROOT / "config.json", *sorted(ROOT.glob("examples/*/*.json"))]
NUMBERS = st.sampled_from(
    [0, 1, -1, 2, 3, 7, 2**31, 2**63, -(2**70), 10**400, 0.5, -0.1, 1e-9, 1e300, True, False]
)
TEXTS = st.text(max_size=8) | st.sampled_from(
    ["adamw", "a.b:c", "total_steps", "min x", ":", "../x", "\0", "nan", "1e400", ".5", "²", "None"]
)
VALUES = st.recursive(
    st.none() | NUMBERS | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
)


def places(value, path=()):
    """The paths of all that is within a value."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        yield (*path, key)
        if isinstance(inner, dict | list):
            yield from places(inner, (*path, key))


def mutate(values, draw):
    """Changes one place: another value, another key, no value, or one more."""
    *parents, last = draw(st.sampled_from(list(places(values))))
    inner = values
    for key in parents:
        inner = inner[key]
    kind = draw(st.sampled_from(["value", "key", "none", "more"]))
    if kind == "value":
        inner[last] = draw(VALUES)
    elif kind == "none":
        del inner[last]
    elif isinstance(inner, dict):
        inner[draw(TEXTS)] = inner.pop(last) if kind == "key" else draw(VALUES)
    else:
        inner.append(draw(VALUES))


@settings(max_examples=600)
@given(data=st.data())
def test_a_changed_config_is_read_or_refused_in_words(tmp_path_factory, data):
    text = data.draw(st.sampled_from(CONFIGS)).read_text(encoding="utf-8")
    values = json.loads(text)
    mutate(values, data.draw)
    text = json.dumps(values)
    if data.draw(st.booleans()):  # the text itself is damaged, too
        at = data.draw(st.integers(0, len(text)))
        text = (
            text[:at] + data.draw(st.text(max_size=3)) + text[at + data.draw(st.integers(0, 3)) :]
        )
    path = tmp_path_factory.getbasetemp() / "mutated.json"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with contextlib.suppress(UserError):
        read_config(path)


@settings(max_examples=8)
@given(data=st.data())
def test_a_changed_config_is_checked_without_a_traceback(config_of, tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp()
    values = config_of(folder)
    mutate(values, data.draw)
    path = folder / "mutated.json"
    path.write_text(json.dumps(values))
    with contextlib.suppress(UserError):
        assert check(str(path)) in (0, 1)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_here_is_read_as_it_is(path):
    assert read_config(path).training.epochs >= 1
