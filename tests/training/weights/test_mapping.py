"""Which array of another program's file is which parameter."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.weights.mapping import choose_source, map_arrays, refuse_ambiguous
from training.weights.names import translate
from training.weights.rows import misfits, suggest, table
from utils import UserError

RANDOM = np.random.default_rng(0)
WORDS = st.text("abcxyz_", min_size=1, max_size=5)


def numbers(*shape):
    return RANDOM.standard_normal(shape).astype(np.float32)


def test_arrays_of_pytorch_become_the_parameters_of_a_network():
    kernel, matrix, fused = numbers(5, 3, 4, 2), numbers(7, 5), numbers(9, 3)
    file = {
        "conv.weight": kernel, "fc.weight": matrix, "fc.bias": numbers(7), "qkv.weight": fused,
        "bn.weight": numbers(5), "bn.bias": numbers(5), "bn.running_mean": numbers(5),
        "bn.running_var": numbers(5), "bn.num_batches_tracked": np.int64(3),
    }  # fmt: skip
    wanted = {
        "stem/kernel": kernel.transpose(2, 3, 1, 0), "head/kernel": matrix.T,
        "head/bias": file["fc.bias"], "norm/scale": file["bn.weight"],
        "norm/bias": file["bn.bias"], "norm/stats/mean": file["bn.running_mean"],
        "norm/stats/variance": file["bn.running_var"], "query/kernel": fused[:3].T,
        "key/kernel": fused[3:6].T, "value/kernel": fused[6:].T,
    }  # fmt: skip
    names = {"conv": "stem", "fc": "head", "bn": "norm", "qkv": "query + key + value"}
    values, rows = map_arrays(file, wanted, names, "a")
    assert values.keys() == wanted.keys()
    for name, array in wanted.items():
        assert np.array_equal(np.asarray(values[name]), array), name
    assert {row.problem for row in rows} == {"", "not needed"}
    assert "qkv.weight" in table(rows)
    assert "transposed, share 2 of 3" in table(rows)


def test_a_parameter_of_half_precision_stays_one():
    file = {"a.weight": numbers(3, 2), "b.weight": np.full((3, 2), 1e5, np.float32)}
    template = {f"{part}/kernel": np.zeros((2, 3), np.float16) for part in "ab"}
    values, _ = map_arrays(file, template, {}, "f")
    array = np.asarray(values["a/kernel"])
    assert array.dtype == values["a/kernel"].dtype == np.float16
    assert np.array_equal(array, file["a.weight"].T.astype(np.float16))
    with pytest.raises(UserError, match=r"b.weight has numbers that are not finite in float16, 6"):
        np.asarray(values["b/kernel"])


@given(st.lists(WORDS, min_size=1, max_size=4), st.lists(st.integers(0, 99), max_size=3), WORDS)
def test_stars_stand_for_the_same_letters_on_both_sides(words, indices, leaf):
    """Any part within any blocks goes where its path with the same numbers leads."""
    path = ".".join([*words[:1], *(f"{word}{index}" for word, index in
                                   zip(words[1:], indices, strict=False))])  # fmt: skip
    stars = ".".join([*words[:1], *(f"{word}*" for word, _ in
                                    zip(words[1:], indices, strict=False))])  # fmt: skip
    used = indices[: len(words) - 1]
    right = "/".join(["there", *("b*" for _ in used)])
    (found,) = translate(f"{path}.{leaf}", {stars: right})
    assert found.name == "/".join(["there", *(f"b{index}" for index in used), leaf])
    assert translate(f"other.{path}.{leaf}", {stars: right}) is None
    assert translate(f"other.{path}.{leaf}", {f"**/{stars}": right}) == [found]
    assert translate(f"{path}.{leaf}", {stars: None}) == []


def test_a_square_matrix_is_taken_as_the_others_of_its_file_are():
    square, tall = numbers(4, 4), numbers(6, 4)
    template = {"a/kernel": square, "b/kernel": tall.T}
    values, _ = map_arrays({"a.weight": square, "b.weight": tall}, template, {}, "f")
    assert np.array_equal(np.asarray(values["a/kernel"]), square.T)
    values, _ = map_arrays({"a.kernel": square, "b.kernel": tall.T}, template, {}, "f")
    assert np.array_equal(np.asarray(values["a/kernel"]), square)


@pytest.mark.parametrize(("array", "rename"), [("a.weight", "a"), ("a.thing", "a")])
def test_a_matrix_that_may_be_either_way_round_is_refused_until_the_config_says(array, rename):
    square, tall = numbers(4, 4), numbers(6, 4)
    file = {array: square, "b.weight": tall.T}  # as GPT-2's, under PyTorch's name
    template = {"a/kernel": square, "b/kernel": tall.T}
    names = {"a.thing": "a/kernel"}
    values, rows = map_arrays(file, template, names, "f")
    with pytest.raises(UserError, match=r'inputs, outputs.*(?s:.*)"rename": \{"a.*:as-is"'):
        refuse_ambiguous(rows, values, "f")
    for layout, wanted in (("as-is", square), ("transposed", square.T)):
        names = {"a.thing": f"a/kernel:{layout}", "a": f"a:{layout}"}
        values, rows = map_arrays(file, template, names, "f")
        refuse_ambiguous(rows, values, "f")
        assert np.array_equal(np.asarray(values["a/kernel"]), wanted)


def test_names_are_proposed_where_only_one_part_has_the_shapes():
    file = {"layers.0.fc.weight": numbers(8, 3), "layers.1.fc.weight": numbers(8, 3)}
    file |= {"out.weight": numbers(2, 8), "q.weight": numbers(5, 5), "k.weight": numbers(5, 5)}
    template = {"block1/hidden/kernel": numbers(3, 8), "block2/hidden/kernel": numbers(3, 8)}
    template |= {
        "head/kernel": numbers(8, 2),
        "qu/kernel": numbers(5, 5),
        "ke/kernel": numbers(5, 5),
    }
    _, rows = map_arrays(file, template, {}, "f")
    sure, near = suggest(rows)
    first = {"layers.0.fc": "block1/hidden", "layers.1.fc": "block2/hidden"}
    assert {key.replace("/", "."): one for key, one in sure.items()} == first | {"out": "head"}
    assert near.keys() == {"qu", "ke"}  # of the same shape, so not decided
    assert not suggest(map_arrays(file, template, sure, "f")[1])[0]


BLOCK = {"stem/kernel": (3, 4), "stem/bias": (4,), "body/kernel": (4, 5), "body/bias": (5,)}
THEIRS = {"first.weight": (4, 3), "first.bias": (4,), "last.weight": (5, 4), "last.bias": (5,)}
SOURCES = {"theirs": {"first": "stem", "last": "body"}}


def chosen(file, template, rename=None):
    """{parameter: its arrays} of what the names of a file are taken for."""
    file = {name: numbers(*shape) for name, shape in file.items()}
    template = {name: numbers(*shape) for name, shape in template.items()}
    _, names = choose_source(file, template, SOURCES, rename or {}, "f")
    _, rows = map_arrays(file, template, names, "f")
    return {row.target: row.sources for row in rows if row.sources and not row.problem}


@pytest.mark.parametrize("there", ["", "module.", "module._orig_mod.", "backbone."])
@pytest.mark.parametrize("here", ["", "encoder/", "net/encoder/"])
def test_a_part_of_the_file_is_found_for_a_part_of_the_network(there, here):
    file = {there + name: shape for name, shape in THEIRS.items()}
    template = {here + name: shape for name, shape in BLOCK.items()}
    more = ({"head.weight": (2, 5)}, {"head/kernel": (5, 2)}) if there and here else ({}, {})
    found = chosen(file | more[0], template | more[1])
    assert found == {
        **{here + ours: (there + name,) for ours, name in zip(BLOCK, THEIRS, strict=True)},
        **({"head/kernel": ("head.weight",)} if more[0] else {}),
    }


def test_where_two_parts_fit_the_config_has_to_say_which():
    both = {f"{part}.{name}": shape for part in ("model", "ema") for name, shape in THEIRS.items()}
    with pytest.raises(UserError, match=r'"rename": \{"(ema|model)": null\}'):
        chosen(both, BLOCK)
    found = chosen(both, BLOCK, {"ema": None})
    assert found["stem/kernel"] == ("model.first.weight",)
    pair = {f"{part}/{name}": shape for part in ("a", "b") for name, shape in BLOCK.items()}
    with pytest.raises(UserError, match=r'"partial": \["a"\]'):
        chosen(THEIRS, pair)
    wider = {name: shape for name, shape in pair.items() if name[0] == "a"}
    wider |= {f"b/{name}": tuple(2 * size for size in shape) for name, shape in BLOCK.items()}
    assert {name[0] for name in chosen(THEIRS, wider)} == {"a"}


def test_what_differs_is_named_by_the_largest_parts_that_do():
    file = {name: numbers(*shape) for name, shape in THEIRS.items()} | {"out.0.weight": numbers(2)}
    template = {name: numbers(*shape) for name, shape in BLOCK.items()}
    names = SOURCES["theirs"] | {"pooler": "pooler:optional"}
    head = template | {"head/fc/kernel": numbers(5, 3)}
    assert misfits(map_arrays(file, head, names, "f")[1]) == ["out", "head"]
    adapted = template | {"stem/down": numbers(3, 1), "body/down": numbers(4, 1)}
    del file["out.0.weight"]
    assert misfits(map_arrays(file, adapted, names, "f")[1]) == ["**/down"]
    pooled = file | {"pooler.weight": numbers(5, 5)}
    assert not misfits(map_arrays(pooled, template, names, "f")[1])
    assert "pooler/kernel" in map_arrays(pooled, template | {"pooler/kernel": numbers(5, 5)},
                                         names, "f")[0]  # fmt: skip
