"""Rules for ONNX graphs: each names a pattern of operators, and the one that replaces it."""

import numpy as np
import onnx_ir as ir
from onnxscript.rewriter import RewriteRuleClassBase
from onnxscript.rewriter.rules.common import matmul_add_to_gemm_rule, transpose_transpose_rule

TO_CHANNELS_FIRST, TO_CHANNELS_LAST = [0, 3, 1, 2], [0, 2, 3, 1]


class Gelu(RewriteRuleClassBase):
    """TFL_GELU(x), which tf2onnx does not translate -> Gelu(x)."""

    def pattern(self, op, x):
        return op.TFL_GELU(x, _allow_other_attributes=True, _outputs=["y"])

    def rewrite(self, op, x, y):
        approximate = y.producer().attributes.get_int("approximate", 0)
        return op.Gelu(x, approximate="tanh" if approximate else "none")


class UpdateSlice(RewriteRuleClassBase):
    """TFL_DYNAMIC_UPDATE_SLICE(x, part, start), not translated either -> Where(inside, part, x)."""

    def pattern(self, op, x, part, start):
        return op.TFL_DYNAMIC_UPDATE_SLICE(x, part, start, _allow_other_attributes=True)

    def rewrite(self, op, x, part, start):
        size = op.Shape(part)
        last = op.Sub(op.Shape(x), size)
        first = op.Max(op.Cast(start, to=ir.DataType.INT64), op.Constant(value_ints=[0]))
        before = op.Min(first, last)  # as XLA does
        around = op.Concat(before, op.Sub(last, before), axis=0)
        inside = op.Pad(op.Expand(op.Constant(value=ir.tensor(np.array(True))), size), around)
        return op.Where(inside, op.Pad(part, around), x)


class CheckedLookup(RewriteRuleClassBase):
    """Where(x >= 0, GatherND(table, Where(x < 0, x + rows, x)), NaN) -> GatherND(table, x).

    `model.modules.embedding` looks rows up in this way. What has no row is an error of the file,
    as in a .tflite file (`tflite_lookups.gather_rows`, `onnx_indices.py`).
    """

    def pattern(self, op, x, zero, least, rows, shape, checked, table, nan):
        wrapped = op.Where(op.Less(x, zero), op.Add(x, rows), x)
        index = op.Cast(op.Reshape(wrapped, shape), to=ir.DataType.INT64)
        check = op.Reshape(op.GreaterOrEqual(x, least), checked)
        return op.Where(check, op.GatherND(table, index), nan)

    def check(self, context, zero, least, nan, **_):
        numbers = _numbers(nan)
        return (
            bool(numbers) and np.isnan(numbers).all() and _numbers(zero) == _numbers(least) == [0]
        )

    def rewrite(self, op, x, shape, table, **_):
        return op.GatherND(table, op.Cast(op.Reshape(x, shape), to=ir.DataType.INT64))


class BatchSizes(RewriteRuleClassBase):
    """slope * batch + offset, one of several sizes being the batch -> Concat(sizes, batch, sizes).

    any_batch.py adds this pattern, and tf2onnx the casts around it.
    """

    def pattern(self, op, x, begin, end, slope, offset):
        batch = op.Slice(op.Cast(op.Shape(x), to=ir.DataType.INT32), begin, end)
        return op.Cast(op.Add(op.Mul(batch, slope), offset), to=ir.DataType.INT64)

    def check(self, context, slope, offset, **_):
        slope, offset = _numbers(slope), _numbers(offset)
        at = slope.index(1) if slope.count(1) == 1 else None
        return at is not None and sum(map(abs, slope)) == 1 and offset[at] == 0

    def rewrite(self, op, x, begin, end, slope, offset):
        slope, offset = _numbers(slope), _numbers(offset)
        at = slope.index(1)
        batch = op.Shape(x, start=_numbers(begin)[0], end=_numbers(end)[0])
        parts = [op.Constant(value_ints=one) for one in (offset[:at], offset[at + 1 :]) if one]
        parts.insert(1 if at else 0, batch)
        return op.Concat(*parts, axis=0) if len(parts) > 1 else batch


class Standardise(RewriteRuleClassBase):
    """(x - mean(x)) / sqrt(mean((x - mean(x))^2) + epsilon) over the last axis, in nine operators
    -> LayerNormalization(x, 1)."""

    def pattern(self, op, x, mean_axes, variance_axes, epsilon):
        mean = op.ReduceMean(x, mean_axes, keepdims=1, _allow_other_attributes=True)
        deviation = op.Sub(x, mean)
        square = op.Mul(deviation, deviation)
        variance = op.ReduceMean(square, variance_axes, keepdims=1, _allow_other_attributes=True)
        return op.Mul(deviation, op.Reciprocal(op.Sqrt(op.Add(variance, epsilon))))

    def check(self, context, x, mean_axes, variance_axes, epsilon):
        last = [-1] if x.shape is None else [len(x.shape) - 1]
        axes = [_numbers(one) in (last, [-1]) for one in (mean_axes, variance_axes)]
        known = x.shape is not None and isinstance(x.shape[-1], int)
        return known and all(axes) and len(_numbers(epsilon)) == 1

    def rewrite(self, op, x, mean_axes, variance_axes, epsilon):
        ones = op.Constant(value=ir.tensor(np.ones(x.shape[-1], np.float32)))
        return op.LayerNormalization(x, ones, axis=-1, epsilon=_numbers(epsilon)[0])


class StandardiseBySquares(Standardise):
    """The same with the variance as max(0, mean(x^2) - mean(x)^2), as in Flax.

    That loses digits where the mean is far from 0; LayerNormalization does not.
    """

    def pattern(self, op, x, mean_axes, variance_axes, epsilon):
        mean = op.ReduceMean(x, mean_axes, keepdims=1, _allow_other_attributes=True)
        square = op.Mul(x, x)
        square = op.ReduceMean(square, variance_axes, keepdims=1, _allow_other_attributes=True)
        variance = op.Relu(op.Sub(square, op.Mul(mean, mean)))
        return op.Mul(op.Sub(x, mean), op.Reciprocal(op.Sqrt(op.Add(variance, epsilon))))


class ScaleLast(RewriteRuleClassBase):
    """(x - mean) * (1 / deviation * scale), as in Flax and Haiku -> (x - mean) * 1 / deviation
    * scale, which the rules above and below match."""

    def pattern(self, op, centred, deviation, scale):
        return op.Mul(centred, op.Mul(op.Reciprocal(deviation), scale))

    def check(self, context, centred, scale, **_):
        node = centred.producer()
        return node is not None and node.op_type == "Sub" and scale.const_value is not None

    def rewrite(self, op, centred, deviation, scale):
        return op.Mul(op.Mul(centred, op.Reciprocal(deviation)), scale)


class Scale(RewriteRuleClassBase):
    """LayerNormalization(x, a) * b -> LayerNormalization(x, a * b)."""

    def pattern(self, op, x, first, scale):
        y = op.LayerNormalization(x, first, _allow_other_attributes=True, _outputs=["y"])
        return op.Mul(y, scale)

    def check(self, context, x, scale, **_):
        return _fits_last_axis(scale, x)

    def rewrite(self, op, x, first, scale, y):
        scale = op.Mul(first, op.Reshape(scale, op.Constant(value_ints=[-1])))
        return op.LayerNormalization(x, scale, **y.producer().attributes)


class Shift(RewriteRuleClassBase):
    """LayerNormalization(x, a) + b -> LayerNormalization(x, a, b)."""

    def pattern(self, op, x, scale, bias):
        y = op.LayerNormalization(x, scale, _allow_other_attributes=True, _outputs=["y"])
        return op.Add(y, bias)

    def check(self, context, x, bias, **_):
        return _fits_last_axis(bias, x)

    def rewrite(self, op, x, scale, bias, y):
        bias = op.Reshape(bias, op.Constant(value_ints=[-1]))
        return op.LayerNormalization(x, scale, bias, **y.producer().attributes)


class PixelwiseConvolution(RewriteRuleClassBase):
    """A 1 x 1 convolution between transpositions -> MatMul, without transpositions."""

    def pattern(self, op, x, kernel):
        x = op.Transpose(x, perm=TO_CHANNELS_FIRST)
        y = op.Conv(x, kernel, _allow_other_attributes=True, _outputs=["convolved"])
        return op.Transpose(y, perm=TO_CHANNELS_LAST)

    def check(self, context, kernel, convolved, **_):
        convolution = convolved.producer().attributes
        plain = (
            kernel.const_value is not None
            and list(kernel.shape)[2:] == [1, 1]
            and convolution.get_int("group", 1) == 1
            and set(convolution.get_ints("strides", [1])) == {1}
            and not any(convolution.get_ints("pads", []))
        )
        return plain

    def rewrite(self, op, x, kernel, convolved):
        matrix = op.Reshape(kernel, op.Constant(value_ints=list(kernel.shape)[:2]))
        return op.MatMul(x, op.Transpose(matrix, perm=[1, 0]))


class BiasedPixelwiseConvolution(PixelwiseConvolution):
    """The same with a bias -> Add(MatMul)."""

    def pattern(self, op, x, kernel, bias):
        x = op.Transpose(x, perm=TO_CHANNELS_FIRST)
        y = op.Conv(x, kernel, bias, _allow_other_attributes=True, _outputs=["convolved"])
        return op.Transpose(y, perm=TO_CHANNELS_LAST)

    def rewrite(self, op, x, kernel, bias, convolved):
        return op.Add(super().rewrite(op, x, kernel, convolved), bias)


class SinkTransposition(RewriteRuleClassBase):
    """f(Transpose(x)) -> Transpose(f(x)) for elementwise f, so that transpositions meet."""

    def __init__(self, kind):
        super().__init__(f"SinkTransposition{kind}")
        self.kind = kind

    def pattern(self, op, x, perm):
        y = op.Transpose(x, perm=perm)
        return getattr(op, self.kind)(y, _allow_other_attributes=True, _outputs=["y"])

    def rewrite(self, op, x, perm, y):
        attributes = y.producer().attributes
        return op.Transpose(getattr(op, self.kind)(x, **attributes), perm=perm)


FUSIONS = [
    UpdateSlice.rule(),
    CheckedLookup.rule(),
    BatchSizes.rule(),
    *(
        rule
        for one in (ScaleLast, Standardise, StandardiseBySquares, Scale, Shift)
        for rule in one.rule().commute()
    ),
    PixelwiseConvolution.rule(),
    BiasedPixelwiseConvolution.rule(),
    matmul_add_to_gemm_rule,
]


LAYOUT = [
    transpose_transpose_rule,
    *(SinkTransposition.rule(kind) for kind in ("Relu", "Gelu", "Sigmoid", "Tanh", "LeakyRelu")),
]


def _numbers(value):
    """A constant's elements as a list; an empty one for a value that is no constant."""
    return [] if value.const_value is None else value.const_value.numpy().reshape(-1).tolist()


def _fits_last_axis(value, x):
    """Whether a value is a constant with one number for each element of the last axis of x."""
    size = x.shape[-1]
    return len(_numbers(value)) == size and (size == 1 or value.shape[-1] == size)
