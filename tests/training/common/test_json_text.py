"""Numbers, constants and texts of the command line, and JSON that no config can be."""

import contextlib
import json
import math
import re
import resource

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.project import by_set
from training.common.json_text import LIMIT, parse_value
from training.config import Config, Named, read_config
from training.sweep.plan import parse_overrides
from utils import UserError

SAMPLE = "config.json"


def python_value(text):
    """What Python's own constructors make of a text, the text if it is none of theirs."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (".1", 0.1), ("1.", 1.0), ("1e-3", 1e-3), ("+1", 1), ("1_000", 1000), ("-.5", -0.5),
        ("1E5", 1e5), ("+1.5e+3", 1500.0), ("007", 7), ("True", True), ("False", False),
        ("true", True), ("None", None), ("none", None), ("null", None), ('"1"', "1"), ("'1'", "1"),
        ("My run", "My run"), ("[.1,.3]", [0.1, 0.3]), ("[[.1],[1_0]]", [[0.1], [10]]),
        ("[accuracy, top k]", ["accuracy", "top k"]), ("['a', \"b\"]", ["a", "b"]),
        ("{a: .1, 'b': [True, None]}", {"a": 0.1, "b": [True, None]}), ("[]", []), ("", ""),
        ("C:/data", "C:/data"), ("1.2.3", "1.2.3"), ("1__0", "1__0"), ("²", "²"), ("٣", "٣"),
    ],
)  # fmt: skip
def test_a_value_is_what_a_person_means(text, value):
    assert repr(parse_value(text, "k")) == repr(value)  # 1 is not 1.0, nor True


NUMBERS = st.from_regex(r"[+-]?[0-9_]{0,6}\.?[0-9_]{0,6}([eE][+-]?[0-9_]{1,2})?", fullmatch=True)


@settings(max_examples=by_set(50, 1000))
@given(NUMBERS)
def test_whatever_looks_like_a_number_is_the_one_that_python_reads(text):
    assert repr(parse_value(text, "k")) == repr(python_value(text))


@settings(max_examples=by_set(50, 500))
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-LIMIT, LIMIT - 1)
        | st.floats(allow_nan=False, allow_infinity=False) | st.text(st.characters(codec="ascii")),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=5), inner),
        max_leaves=10,
    )
)  # fmt: skip
def test_every_json_value_is_read_as_json_reads_it(value):
    text = json.dumps(value)
    if re.search(r'"[A-Za-z]:(\\[tnrfb])|\\u0000|\\ud', text):  # paths of Windows, NUL, surrogates
        return
    assert parse_value(text, "k") == json.loads(text)


@settings(max_examples=by_set(50, 500))
@given(st.text())
def test_any_text_is_a_value_or_refused_in_one_message(text):
    with contextlib.suppress(UserError):
        value = parse_value(text, "k")
        assert not isinstance(value, float) or math.isfinite(value)


@pytest.mark.parametrize(
    "text", ["1e400", "-1e400", "NaN", "-Infinity", "9" * 5000, "1_" * 3000 + "1",
             "[1, NaN]", '{"a": 1e999}', str(2**63), "0" * 5000 + "1" + "0" * 30],
)  # fmt: skip
def test_a_number_that_is_not_finite_or_endless_is_refused(text):
    with pytest.raises(UserError, match="no number to train with") as caught:
        parse_value(text, f"k={text}")
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize("word", ["nan", "inf", "-inf", "Nan", "infinity"])
def test_a_word_that_json_does_not_know_as_a_number_is_a_text(word):
    assert parse_value(word, "k") == word
    assert parse_value(f"[{word}, 1]", "k") == [word, 1]


def test_a_key_that_holds_a_text_takes_any_text():
    config = read_config(SAMPLE, ["title=2026", "wandb.id=1234e567", "wandb.group=none",
                                  "training.save_dir=nan", 'wandb.project="None"'])  # fmt: skip
    assert (config.title, config.wandb.id, config.wandb.group) == ("2026", "1234e567", None)
    assert (config.training.save_dir, config.wandb.project) == ("nan", "None")


def test_numbers_reach_every_kind_of_key():
    config = read_config(
        SAMPLE,
        ["training.ema=.9", "training.epochs=1e1", "training.early_stop=+3", "seed=1_0",
         "training.optimizer.args.weight_decay=.1", "wandb.enabled=True", "training.clip_norm=1.",
         "training.loss.args.label_smoothing=.1", "training.metrics=[accuracy]"],
    )  # fmt: skip
    settings = config.training
    assert (settings.ema, settings.epochs, settings.early_stop) == (0.9, 10, 3)
    assert (config.seed, config.wandb.enabled, settings.clip_norm) == (10, True, 1.0)
    assert settings.optimizer.args["weight_decay"] == 0.1
    assert settings.metrics == [Named(name="accuracy")]


def test_a_sweep_reads_values_as_train_does():
    _, choices = parse_overrides(["a=[.1,+3,1_000,True,None]", "b=.1...5"], trials=2)
    assert choices["a"] == [0.1, 3, 1000, True, None]
    assert (choices["b"].low, choices["b"].high) == (0.1, 0.5)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ('training.epochs="10"', 'expected integer, got "10"; write 10, without quotes'),
        ("training.ema='.9'", 'got ".9"; write 0.9, without quotes'),
        ("training.early_stop=2.5", "training.early_stop: expected integer, got 2.5"),
        ("training.metrics=[accuracy", "training.metrics=[accuracy: not valid JSON"),
        ('model.args={"classes": 3, "classes": 4}', "the key 'classes' stands twice, at 1:2"),
        ("wandb.id=../../x", "wandb.id: expected letters, digits"),
        ("wandb.id=..", "wandb.id: expected letters, digits"),
        ("training.metrics.²=a", "expected an index below 1, got '²'"),
        (f"training.metrics.{'9' * 5000}=a", "expected an index below 1, got '999"),
        (".".join("a" * 3000) + "=1", "expected a key of at most 50 parts, got 3000"),
        ("training.checkpoint=a\0b", "holds '\\x00', which is no character of a text"),
    ],
)
def test_an_override_that_no_config_can_hold_is_one_short_message(override, message):
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        read_config(SAMPLE, [override])
    assert len(str(caught.value)) < 300


def test_an_old_key_is_taken_for_the_new_one_with_a_word(caplog):
    config = read_config(
        SAMPLE,
        ["data_loader.device_resident=True", "training.loss=null", "training.optimizer=null",
         'training.rules.a={"loss": "cross_entropy", "optimizer": "sgd"}',
         'training.rules.a.trains=["stem"]'],
    )  # fmt: skip
    assert config.data_loader.cache_on_device is True
    assert config.training.optimizer_groups["a"].params == ["stem"]
    assert "training.rules.a.trains is called training.optimizer_groups.a.params now" in caplog.text


def sample_text():
    with open(SAMPLE, encoding="utf-8") as file:
        return file.read()


FILES = {  # a change of the sample's text, and the words that answer it
    "a key twice": (lambda text: text.replace('"seed": 0', '"seed": 0,\n"\\u0073eed": 1'),
                    "the key 'seed' stands twice, at 4:5 and at 5:1"),
    "infinite": (lambda text: text.replace('"epochs": 10', '"epochs": 1e400'), "1e400 is no"),
    "NaN": (lambda text: text.replace('"epochs": 10', '"epochs": NaN'), "NaN is no number"),
    "endless": (lambda text: text.replace('"epochs": 10', f'"epochs": {"9" * 5000}'), "no number"),
    "deep": (lambda text: "[" * 100_000, "nested too deeply"),
    "deep in it": (lambda text: text.replace("10,", "[" * 900 + "]" * 900 + ","), "too deeply"),
    "a million keys": (lambda text: "{" + ",".join(f'"{i}":1' for i in range(10**6)) + "}",
                       "larger than 1,048,576 characters"),
    "many keys": (lambda text: "{" + ",".join(f'"{i}":1' for i in range(20_000)) + "}",
                  "and 19984 more"),
    "NUL": (lambda text: text.replace("MNIST_", "MNIST\0"), "line 3 has NUL bytes"),
    "an escaped NUL": (lambda text: text.replace('"data"', '"da\\u0000ta"'), "no character"),
    "half a character": (lambda text: text.replace('"data"', '"\\ud800"'), "no character"),
    "UTF-16": (lambda text: text.encode("utf-16"), "not a text file in UTF-8, but in UTF-16"),
    "UTF-16 unmarked": (lambda text: text.encode("utf-16-le"), "line 1 has NUL bytes"),
    "Latin-1": (lambda text: text.replace("MNIST_", "Ménage").encode("latin-1"), "see line 3"),
}  # fmt: skip


@pytest.mark.parametrize("kind", FILES)
def test_a_file_that_no_config_can_be_is_one_message_and_little_memory(kind, tmp_path):
    change, message = FILES[kind]
    changed = change(sample_text())
    path = tmp_path / "config.json"
    path.write_bytes(changed if isinstance(changed, bytes) else changed.encode())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        read_config(path)
    assert len(str(caught.value)) < 2000 + 20 * len(str(path))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 150_000  # KiB


def test_a_byte_order_mark_is_read_over(tmp_path):
    path = tmp_path / "config.json"
    path.write_bytes(sample_text().encode("utf-8-sig"))
    assert read_config(path) == read_config(SAMPLE)


def test_a_dict_that_no_config_can_be_is_refused_too():
    cyclic = {}
    cyclic["model"] = cyclic
    for values, message in [
        (cyclic, "nested too deeply"), ({"seed": float("nan")}, "nan is no number"),
        ({"seed": 10**400}, "a whole number is no number to train with"),
        ({"title": "a\0"}, "no character"),
    ]:  # fmt: skip
        with pytest.raises(UserError, match=message):
            read_config(values)


def test_every_whole_number_of_a_config_may_be_written_as_a_power():
    whole = [name for name, field in Config.model_fields["training"].annotation.model_fields.items()
             if "_whole" in repr(field.metadata) + repr(field.annotation)]  # fmt: skip
    assert {"epochs", "keep", "early_stop"} <= set(whole)
    for name in whole:
        assert getattr(read_config(SAMPLE, [f"training.{name}=1e0"]).training, name) == 1
