"""What both formats have is exported to both, for any batch; what one has, to that one."""

import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime
import pytest
from jax import lax

from inference.export.converter import import_tensorflow, to_raw_onnx, to_tflite
from inference.export.network import Array, describe, lower
from inference.export.worker import Worker
from inference.graph.onnx_direct import to_onnx
from inference.graph.onnx_graph import finish
from inference.verify.equivalence import LIMITS, check
from inference.verify.reference import make_reference
from utils import UserError

ROW, WHOLE, INDEX = ((6,), "float32"), ((), "int32"), ((3,), "int32")
INTEGERS, BYTES, FLAGS = ((6,), "int32"), ((4,), "uint8"), ((4,), "bool")
RANDOM = np.random.default_rng(0)
TABLE = RANDOM.standard_normal((6, 5)).astype(np.float32)


def rows(x):
    return jnp.arange(x.shape[0])


# tf2onnx takes integers for floats, or has no counterpart.
ONLY_DIRECT = {"a product of integers", "top_k of integers", "sort of integers", "arctan2",
               "sort by two keys", "a choice of conditions", "log of a sum of none"}  # fmt: skip
KERNEL = RANDOM.standard_normal((3, 2, 2)).astype(np.float32)


def convolved(x, **options):
    x = x.reshape(-1, 4, 2)
    return lax.conv_general_dilated(
        x, KERNEL, dimension_numbers=("NWC", "WIO", "NWC"), window_strides=(1,), **options
    )


def pooled(x, **options):
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 2), (1, 1), "SAME", **options)


OPERATIONS = {
    "argmax": (lambda x: {"p": jax.nn.softmax(x @ TABLE), "label": (x @ TABLE).argmax(-1)}, ROW),
    "argmin": (lambda x: x.argmin(1), ((4, 5), "float32")),
    "top_k": (lambda x: dict(zip("vi", lax.top_k(x, 3), strict=True)), ROW),
    "top_k of integers": (lambda x: dict(zip("vi", lax.top_k(x, 3), strict=True)), INTEGERS),
    "values of top_k": (lambda x: lax.top_k(x, 3)[0] * 2, ROW),
    "sort": (jnp.sort, ROW),
    "sort of integers": (jnp.sort, INTEGERS),
    "sort along an axis": (lambda x: jnp.sort(x, axis=1), ((4, 3), "float32")),
    "argsort": (jnp.argsort, ROW),
    "argsort, descending": (lambda x: jnp.argsort(x, descending=True), ROW),
    "median": (lambda x: jnp.median(x, -1), ROW),
    "set": (lambda x: x.at[:, 0].set(0.0), ROW),
    "set, dynamic": (lambda x, i: x.at[rows(x), i].set(7.0), ROW, WHOLE),
    "add": (lambda x: x.at[:, np.array([0, 2, 2])].add(1.0), ROW),
    "multiply": (lambda x: x.at[:, np.array([0, 3])].multiply(2.0), ROW),
    "set a slice": (lambda x: x.at[:, 2:4].set(0.0), ROW),
    "histogram": (lambda i: jnp.zeros((len(i), 9)).at[rows(i)[:, None], i].add(1.0), INDEX),
    "take_along_axis": (lambda x, i: jnp.take_along_axis(x, i, 1), ROW, INDEX),
    "index by rows": (lambda x, i: x[rows(x), i - 1], ((5, 4), "float32"), WHOLE),
    "index in vmap": (lambda x, i: jax.vmap(lambda a, j: a[j])(x, i), ROW, WHOLE),
    "slice in vmap": (
        lambda x, i: jax.vmap(lambda a, j: lax.dynamic_slice(a, (j,), (2,)))(x, i), ROW, WHOLE
    ),
    "take": (lambda i: jnp.take(TABLE, i, axis=0), INDEX),
    "take, clipped": (lambda i: jnp.asarray(TABLE).at[i].get(mode="clip"), INDEX),
    "cumsum": (lambda x: jnp.cumsum(x, 1), ROW),
    "cumsum, reverse": (lambda x: lax.cumsum(x, 1, reverse=True), ROW),
    "cumsum of integers": (lambda x: jnp.cumsum(x, 1), INTEGERS),
    "cumprod": (lambda x: jnp.cumprod(x, 1), ROW),
    "cumprod, reverse": (lambda x: lax.cumprod(x, 1, reverse=True), ROW),
    "cummax": (lambda x: lax.cummax(x, 1), ROW),
    "cummin, reverse": (lambda x: lax.cummin(x, 1, reverse=True), ROW),
    "cumlogsumexp": (lambda x: lax.cumlogsumexp(x, 1), ROW),
    "%": (lambda n: (n - 20) % 3, WHOLE),
    "% of a negative": (lambda n: n % -3, WHOLE),
    "% of any": (lambda n, m: n % m, WHOLE, WHOLE),
    "//": (lambda n: n // 7, WHOLE),
    "// by any": (lambda n, m: n // m, WHOLE, WHOLE),
    "rem": (lambda n: lax.rem(n, 3), WHOLE),
    "fmod": (lambda n: jnp.fmod(n, 3), WHOLE),
    "fmod of reals": (lambda x: jnp.fmod(x, 1.5), ROW),
    "% of reals": (lambda x: x % 1.5, ROW),
    "// of reals": (lambda x: x // 1.5, ROW),
    "cbrt": (jnp.cbrt, ROW),
    "softmax, twice": (
        lambda x: {"p": jax.nn.softmax(x), "max": jax.nn.softmax(x).max(-1)}, ROW
    ),
    "bytes": (lambda x: {"a": 255 - x, "b": x * 3 + 7, "c": x // 7, "d": x % 7}, BYTES),
    "int8": (lambda x: {"a": -x, "b": abs(x) - 3}, ((4,), "int8")),
    "exclusive or": (lambda a, b: {"a": a ^ b, "b": (a & b) | ~b, "c": a.any(-1)}, FLAGS, FLAGS),
    "shifts": (lambda n: (n << 2) + (n >> 1), WHOLE),
    "shifts by any": (lambda n, m: (n >> (m % 32)) + (n << (m % 8)), WHOLE, WHOLE),
    "shifts by too many": (lambda n, m: (n << m) + (n >> abs(m)), WHOLE, WHOLE),
    "sort by two keys": (
        lambda x, n: lax.sort((n // 3, x, n), num_keys=2)[2], ROW, INTEGERS
    ),
    "top_k of another axis": (lambda x: lax.top_k(x, 2, axis=1)[0], ((4, 3), "float32")),
    "padding inside": (lambda x: lax.pad(x, 2.0, [(0, 0, 0), (1, -1, 2)]), ROW),
    "cropped convolution": (lambda x: convolved(x, padding=[(2, -1)]), ((8,), "float32")),
    "transposed convolution": (
        lambda x: convolved(x, padding=[(1, 2)], lhs_dilation=(2,)), ((8,), "float32")
    ),
    "pooling of a spread array": (lambda x: pooled(x, base_dilation=(1, 2)), ROW),
    "a choice of four": (
        lambda x: lax.select_n((jnp.abs(x) * 9).astype(jnp.int32) % 4, x, -x, 2 * x, x + 1), ROW
    ),
    "a choice of conditions": (lambda x: jnp.select([x > 1, x > 0], [x, 2 * x], -x), ROW),
    "arctan2": (lambda x: jnp.arctan2(x[:, :3], x[:, 3:]), ROW),
    "scan, backwards": (
        lambda x: lax.scan(lambda s, r: (s * 0.5 + r, s), x[:, 0], x.T, reverse=True)[1].T, ROW
    ),
    "while": (
        lambda x: lax.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, s[1] / 2), (0, x))[1],
        ROW,
    ),
    "a product of integers": (
        lambda x, n: jnp.einsum("bi,bj->bij", n, (9 * x).astype(jnp.int32)).sum(1), ROW, INTEGERS
    ),
    "a product of conditions": (lambda a, b: jnp.einsum("bi,bi->b", a, b), FLAGS, FLAGS),
    "a computed first matrix": (
        lambda x: jax.image.resize(x, (x.shape[0], 5, 5), "linear"), ((4, 6), "float32")
    ),
    "search": (lambda x: jnp.searchsorted(np.sort(TABLE[:, 0]), x), ROW),
    "interpolation": (lambda x: jnp.interp(x, np.float32([-1, 0, 2]), TABLE[:3, 0]), ROW),
    "search in two tables": (lambda x: jnp.digitize(x, np.float32([-1, 0, 2])), ROW),
    "top_k of conditions": (lambda x: lax.top_k(x > 0, 2)[1], ROW),
    "a loop until all are done": (lambda n: jnp.gcd(n % 97, 36), INTEGERS),
    "half of uint32": (lambda n: (n.astype(jnp.uint32) // 4).astype(jnp.int32), WHOLE),
    "pooling by products": (
        lambda x: lax.reduce_window(x, 1.0, lax.mul, (1, 3), (1, 2), "SAME"), ROW
    ),
    "a reduction by any function": (
        lambda x: lax.reduce(x, np.float32(0), lambda a, b: a + b + a * b, (1,)), ROW
    ),
    "pooling of integers": (
        lambda n: lax.reduce_window(n, -(2**31), lax.max, (1, 3), (1, 2), "SAME"), INTEGERS
    ),
    "real numbers as bytes": (
        lambda x: {"a": (99 * x).astype(jnp.uint8), "b": (99 * x).astype(jnp.int8)}, ROW
    ),
    "the larger of an integer": (lambda x: jnp.maximum(x.astype(jnp.int32), jnp.int32(2)), ROW),
    "infinities": (
        lambda x: {"a": jnp.where(x > 2, x, -jnp.inf), "b": x + np.float32([1, np.inf] * 3)}, ROW
    ),
    "the largest of none": (lambda x: jnp.where(x > 2, x, -jnp.inf).max(-1), ROW),
    "the smallest of none": (lambda x: jnp.where(x > 2, x, jnp.inf).min(-1), ROW),
    "log of a sum of none": (lambda x: jax.nn.logsumexp(jnp.where(x > 2, x, -jnp.inf), -1), ROW),
    "a window of one": (lambda x: lax.reduce_window(x, 0.0, lax.add, (1, 1), (1, 1), "VALID"), ROW),
    "round": (lambda x: lax.round(x * 2, lax.RoundingMethod.AWAY_FROM_ZERO), ROW),
}  # fmt: skip


@pytest.fixture(scope="module")
def converter(tmp_path_factory):
    with Worker(tmp_path_factory.mktemp("converter") / "log.txt", import_tensorflow) as converter:
        yield converter


def described(function, *inputs):
    arrays = [Array(f"x{at}", shape, np.dtype(dtype)) for at, (shape, dtype) in enumerate(inputs)]
    network = describe(function, arrays)
    reference = make_reference(jax.jit(network.function), lambda *raw: raw, network, [], None)
    return network, reference


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_is_equal_in_both_formats_and_in_either_way_to_onnx(converter, tmp_path, name):
    network, reference = described(*OPERATIONS[name])

    def broken(file, content):
        (tmp_path / file).write_bytes(content)
        return check(tmp_path / file, "float32", reference, LIMITS)["broken"]

    tflite = converter.run(to_tflite, [lower(network, 2), lower(network, 3)], network.names)
    assert broken("network.tflite", tflite) == []
    assert broken("direct.onnx", to_onnx(network)) == []
    if b"STABLEHLO" not in tflite and name not in ONLY_DIRECT:
        try:
            content = finish(converter.run(to_raw_onnx, tflite), network.names)
        except UserError as error:
            assert "STABLEHLO_SCATTER" in str(error)  # noqa: PT017
        else:
            assert broken("network.onnx", content) == []


@pytest.mark.parametrize(
    ("function", "inputs", "of_tflite"),
    [
        (lambda x: x.reshape(-1, 2, 1, 2, 1, 2, 1).transpose(0, 5, 1, 4, 3, 2, 6) * 2,
         [((8,), "float32")], "6-D|illegal|mul"),
        (lambda n: (n & 12) | 5, [WHOLE], "BitwiseAnd.*write // and %"),
        (lambda x: lax.conv_transpose(x, jnp.ones((2, 2, 2, 1, 2)), (2, 2, 2), "SAME"),
         [((2, 2, 2, 1), "float32")], "5-D"),
    ],
    ids=["seven dimensions", "bits", "transposed convolution in 3-D"],
)  # fmt: skip
def test_what_only_onnx_has_is_exported_to_it(converter, tmp_path, function, inputs, of_tflite):
    network, reference = described(function, *inputs)
    with pytest.raises(UserError, match=of_tflite):
        converter.run(to_tflite, [lower(network, 2), lower(network, 3)], network.names)
    (tmp_path / "network.onnx").write_bytes(to_onnx(network))
    assert check(tmp_path / "network.onnx", "float32", reference, LIMITS)["broken"] == []


def test_arctan2_has_the_signs_of_numpy_for_zeros_and_infinities():
    network = describe(jnp.arctan2, [Array(name, (), np.dtype(np.float32)) for name in "yx"])
    numbers = np.float32([0.0, -0.0, 1, -2.5, np.inf, -np.inf])
    y, x = map(np.ravel, np.meshgrid(numbers, numbers))
    finite = np.isfinite(y) | np.isfinite(x)
    y, x = y[finite], x[finite]
    (found,) = onnxruntime.InferenceSession(to_onnx(network)).run(None, {"y": y, "x": x})
    np.testing.assert_allclose(found, np.arctan2(y, x), rtol=1e-6)
    np.testing.assert_array_equal(np.signbit(found), np.signbit(np.arctan2(y, x)))
