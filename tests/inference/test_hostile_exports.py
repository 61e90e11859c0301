"""Exports that somebody else has made: whatever their metadata say, and what their files call."""

import json
import shutil

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference import predict
from inference.serving.classifier import load
from inference.verify import runtimes, stablehlo
from tests.helpers.demo import encoded
from tests.helpers.exports import INSIDE, write_onnx
from tests.helpers.project import by_set, examples
from utils import UserError, csv_text, printable

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    | st.sampled_from([10**400, "\x1b[2J", "=cmd|' /C calc'!A0", "\u202e", "inside", "outside"]),
    lambda one: st.lists(one, max_size=3) | st.dictionaries(st.text(max_size=8), one, max_size=3),
    max_leaves=5,
)  # fmt: skip
NAMES = [
    "title",
    "run",
    "classes",
    "preprocess",
    "parameters",
    "outputs",
    "inputs",
    "value_range",
    "output",
    "probabilities",
]
PREPROCESS = st.fixed_dictionaries(
    {"where": st.just("outside") | ANYTHING, "name": st.just("normalize") | ANYTHING,
     "args": st.fixed_dictionaries({"mean": ANYTHING, "std": ANYTHING}) | ANYTHING},
)  # fmt: skip
OUTPUT = st.fixed_dictionaries(
    {"kind": st.sampled_from(["softmax", "sigmoid", "none"]) | ANYTHING},
    optional={"name": st.just("logits") | ANYTHING, "labels": ANYTHING, "function": ANYTHING},
)  # fmt: skip
METADATA = st.one_of(
    ANYTHING,
    st.dictionaries(st.sampled_from(NAMES), ANYTHING, max_size=4),
    st.fixed_dictionaries({"preprocess": PREPROCESS}, optional={"classes": ANYTHING}),
    st.fixed_dictionaries({"output": OUTPUT}, optional={"classes": ANYTHING}),
)


def refusal(load, path):
    """What loads a file, or the message that refuses it."""
    try:
        return load(path), None
    except UserError as error:
        return None, str(error)


def tidy(text):
    """Whether a text changes neither the terminal's state nor the direction of writing."""
    return text.translate({ord("\n"): None}) == printable(text.replace("\n", ""))


@pytest.fixture(scope="module")
def folder(weights, tmp_path_factory, mnist_images):
    """A folder for an export, with a picture."""
    folder = tmp_path_factory.mktemp("hostile") / "linear"
    folder.mkdir()
    write_onnx(folder / "linear.onnx", weights, INSIDE)
    (folder / "7.png").write_bytes(encoded(mnist_images[0]))
    return folder


@examples(80)
@given(metadata=METADATA)
def test_metadata_of_any_type_are_used_or_refused_in_words(folder, metadata):
    import onnx

    path = folder / "hostile.onnx"
    model = onnx.load(folder / "linear.onnx")
    (entry,) = [one for one in model.metadata_props if one.key == "jax_template"]
    entry.value = json.dumps(metadata)
    onnx.save(model, path)
    network, message = refusal(load, path)
    if message:
        assert str(path) in message
        assert tidy(message)
        return
    found = network.run(np.zeros((2, 1, 28, 28), np.uint8))
    assert (found["logits"] if network.kind == "none" else found).shape == (2, 10)
    assert all(isinstance(name, str) for name in network.classes)


@pytest.mark.parametrize(
    "text", ["", "{", "[" * 100_000, '{"a": ' * 100_000, '{"classes": ' + "9" * 5000 + "}",
             "\ud800", '{"title": "' + "x" * 2**23 + '"}', "NaN", '{"parameters": NaN}'],
)  # fmt: skip
def test_metadata_that_are_no_json_are_refused_in_words(folder, text, capsys):
    from inference.verify.metadata import parse_metadata

    content = text.encode("utf-8", "surrogatepass")
    with pytest.raises(UserError, match=r"linear\.onnx"):
        parse_metadata(content, "linear.onnx")


@pytest.fixture(scope="module")
def stablehlo_file(weights, tmp_path_factory):
    network = jax.export.export(jax.jit(lambda x: x.reshape(len(x), -1) @ weights[0]))(
        jax.ShapeDtypeStruct((2, 1, 28, 28), np.float32)
    )
    path = tmp_path_factory.mktemp("network") / "net.stablehlo"
    path.write_bytes(network.serialize())
    return path


@pytest.mark.parametrize(
    "report", by_set(
        [b"\xff\xfe", b'{"metadata": {"outputs": []}}'],
        [b"", b"\xff\xfe", b"[1]", b'{"metadata": 3}', b'{"metadata": {"outputs": []}}',
         b'{"metadata": {"outputs": {"a": 1, "b": 2}}}', b'{"metadata": {"outputs": {}}}'],
    ),
)  # fmt: skip
def test_a_report_that_says_anything_is_refused_in_words(stablehlo_file, tmp_path, report):
    shutil.copy(stablehlo_file, tmp_path)
    (tmp_path / "report.json").write_bytes(report)
    with pytest.raises(UserError, match=r"report\.json"):
        load(tmp_path / "net.stablehlo")


@pytest.mark.parametrize("target", ["xla_ffi_python_cpu_callback", "lapack_sgetrf_ffi"])
def test_a_stablehlo_file_with_a_custom_call_is_refused(tmp_path, target):
    def network(x):
        shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
        return jax.ffi.ffi_call(target, shape)(x, index=np.uint64(12345))

    check = jax.export.DisabledSafetyCheck.custom_call(target)
    exported = jax.export.export(jax.jit(network), disabled_checks=[check])
    content = exported(jax.ShapeDtypeStruct((2, 784), np.float32)).serialize()
    (tmp_path / "net.stablehlo").write_bytes(content)
    with pytest.raises(UserError, match="custom_call, which may run anything"):
        stablehlo.read(tmp_path / "net.stablehlo", own=True)
    with pytest.raises(UserError, match=r"net\.stablehlo"):
        runtimes.load(tmp_path / "net.stablehlo")


def test_names_of_classes_and_files_write_nowhere_else(weights, tmp_path, mnist_images, capfd):
    names = [
        "\x1b[2J",
        "=1+1",
        "@SUM(A1)",
        "-2",
        "two\rthree",
        "\u202eevil",
        "+x",
        "7",
        "8",
        "a\nb",
    ]
    write_onnx(tmp_path / "net.onnx", weights, INSIDE, classes=names)
    picture = tmp_path / "=cmd.png"
    picture.write_bytes(encoded(mnist_images[0]))
    monkey = ["--name", str(tmp_path / "net.onnx")]
    assert predict.main([str(picture), *monkey, "--top", "10"]) == 0
    out = capfd.readouterr().out
    assert tidy(out)
    assert out.count("\n") == 1
    out_file = tmp_path / "p.csv"
    assert predict.main([str(picture), *monkey, "--out", str(out_file)]) == 0
    text = out_file.read_text()
    assert tidy(text.replace("\r\n", "\n"))
    cells = [cell for line in text.splitlines() for cell in line.split(",")]
    assert not [cell for cell in cells if cell[:1] in ("=", "+", "@")]


@pytest.mark.parametrize(
    ("text", "cell"),
    [("=cmd", "'=cmd"), ("+1", "+1"), ("-1.5e3", "-1.5e3"), ("-x", "'-x"), ("@a", "'@a"),
     ("\t=a", "\\t=a"), ("a\rb", "a\\rb"), ("cat", "cat"), ("\udcff", "\udcff")],
)  # fmt: skip
def test_a_cell_is_no_formula(text, cell):
    assert csv_text(text) == cell


def test_a_damaged_stablehlo_file_ends_no_process(tmp_path, weights):
    """What reads StableHLO crashes at some."""
    network = jax.export.export(jax.jit(lambda x: x.reshape(len(x), -1) @ weights[0]))(
        jax.ShapeDtypeStruct((2, 1, 28, 28), np.float32)
    )
    content = bytes(network.serialize())
    random = np.random.default_rng(0)
    for _ in range(by_set(1, 12)):
        damaged = bytearray(content)
        for place in random.integers(0, 1500, 5):
            damaged[place] = random.integers(256)
        (tmp_path / "net.stablehlo").write_bytes(damaged)
        _, message = refusal(runtimes.load, tmp_path / "net.stablehlo")
        assert message is None or "net.stablehlo" in message
