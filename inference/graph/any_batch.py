"""Merges two .tflite files of one network, for 2 and for 3 examples, into one for any number.

TensorFlow's converter can keep the batch size unknown, but then fills the graph with arithmetic on
shapes, which is 2 to 40 times as slow. So it converts the network twice, and whatever differs
between the two graphs depends on the batch:

    a dimension     becomes -1
    a constant of   becomes -1 where its operator takes that for "the rest", else
    sizes           slope * batch + offset, computed from the shape of an input
    a constant that becomes first + number * step, by the number of each example
    counts examples
    a constant with becomes its first row, broadcast over the batch where the operator does not
    a row for each  broadcast by itself
    anything else   is an error: the examples of a batch would depend on each other
"""

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from inference.graph.tflite_graph import Graph, layer_of
from utils import UserError

SIZES = (2, 3)  # of the batches that the two files are for
OTHER_SIZES = (22, 23)  # where a network's own 2 or 3 is one constant with that of the batch
DEPENDENT = "the network does not treat the examples of a batch one by one"
BROADCASTING = {"ADD", "SUB", "MUL", "DIV", "MAXIMUM", "MINIMUM", "POW", "SQUARED_DIFFERENCE",
                "SELECT_V2", "EQUAL", "NOT_EQUAL", "LESS", "LESS_EQUAL", "GREATER",
                "GREATER_EQUAL"}  # fmt: skip


class BatchDependent(UserError):
    """The network cannot be exported for any batch size."""

    def __str__(self):
        return f"{DEPENDENT}: {self.args[0]}. Fix that, or export it for one batch size: --static"


def merge(two, three, sizes=SIZES):
    """Returns the model for any batch size, of those for two sizes; changes `two` in place.

    Raises:
        BatchDependent: the models differ in more than the batch size.
    """
    if len(two.subgraphs) != len(three.subgraphs):
        raise BatchDependent("its graph has other subgraphs for another batch size")
    for first, second in zip(two.subgraphs, three.subgraphs, strict=True):
        _merge_graphs(Graph(two, first), Graph(three, second), sizes)
    return two


def _merge_graphs(two, three, sizes):
    kinds = [[graph.kind(one) for one in graph.operators] for graph in (two, three)]
    if kinds[0] != kinds[1] or len(two.subgraph.tensors) != len(three.subgraph.tensors):
        pairs = zip(*kinds, strict=False)
        at = next((at for at, (one, other) in enumerate(pairs) if one != other), 0)
        where = (
            f" from {kinds[0][at]} on (layer {layer_of(two, two.operators[at])})"
            if kinds[0]
            else ""
        )
        raise BatchDependent(f"its graph has other operators for another batch size{where}")
    for one, other in zip(two.operators, three.operators, strict=True):
        _compare_operators(two.kind(one), one, other)
    batch = _Batch(two, sizes)
    for index in range(len(two.subgraph.tensors)):
        shapes = two.shape(index), three.shape(index)
        values = _values(two, index), _values(three, index)
        if (values[0] is None) != (values[1] is None) or len(shapes[0]) != len(shapes[1]):
            raise BatchDependent(f"{_name(two, index)} is of another kind for another batch size")
        if values[0] is None:
            any_size = tuple(a if a == b else -1 for a, b in zip(*shapes, strict=True))
            if any_size != shapes[0]:
                two.set_shape(index, any_size)
                batch.note_input(index, shapes)
        elif shapes[0] != shapes[1] or values[0].tobytes() != values[1].tobytes():
            batch.constants.append((index, *values))
    batch.rewrite()


def _compare_operators(kind, one, other):
    for field in ("inputs", "outputs"):
        if list(getattr(one, field)) != list(getattr(other, field)):
            raise BatchDependent(f"{kind} is wired differently for another batch size")
    if kind == "RESHAPE":
        one.builtinOptions = None  # a copy of the shape, which is an input as well
        one.builtinOptionsType = schema.BuiltinOptions.NONE
    elif _plain(one.builtinOptions) != _plain(other.builtinOptions):
        raise BatchDependent(f"{kind} has other settings for another batch size")


class _Batch:
    """The constants of a graph that depend on the batch size, and their replacements."""

    def __init__(self, graph, sizes):
        self.graph, self.sizes, self.constants = graph, sizes, []
        self._source, self._size = None, None

    def note_input(self, index, shapes):
        """Remembers the first input of the graph that has the batch size as a dimension."""
        if self._source is None and index in self.graph.subgraph.inputs:
            pairs = list(zip(*shapes, strict=True))
            if self.sizes in pairs:
                self._source = index, pairs.index(self.sizes)

    def rewrite(self):
        """Replaces every constant in the list."""
        for index, two, three in self.constants:
            if two.shape == three.shape and two.dtype.kind == "i":
                self._sizes(index, two, three)
            elif two.shape != three.shape:
                self._rows(index, two, three)
            else:
                raise BatchDependent(f"the constant {_name(self.graph, index)} depends on its size")

    def _sizes(self, index, two, three):
        """Replaces a constant of sizes by -1 where its operators take that, else by a formula."""
        users = {
            (self.graph.kind(one), list(one.inputs).index(index)) for one in self.graph.users(index)
        }
        if users <= {("BROADCAST_TO", 1)}:  # it takes either type of integer
            two, three = two.astype(np.int32), three.astype(np.int32)
        varying = two != three
        if users <= {("RESHAPE", 1), ("SLICE", 2)} and varying.sum() == 1 and two.ndim == 1:
            value = np.where(varying, -1, two).astype(two.dtype)
            self.graph.replace(index, self.graph.add_constant("sizes", value))
        else:
            self.graph.replace(index, self._computed(two, three))

    def _rows(self, index, two, three):
        """Replaces a constant with a row for each example by its first row, if all are the same."""
        axis = next(at for at, (a, b) in enumerate(zip(two.shape, three.shape)) if a != b)  # noqa: B905
        if self._numbered(index, two, three, axis):
            return
        row = two.take([0], axis)
        same = all((value == row).all() for value in (two, three))
        if not same or [*two.shape[:axis], *two.shape[axis + 1 :]] != [
            *three.shape[:axis], *three.shape[axis + 1 :]
        ]:  # fmt: skip
            raise BatchDependent(
                f"the constant {_name(self.graph, index)} has another value for each example"
            )
        new = self.graph.add_constant("row", row)
        if index in self.graph.subgraph.outputs or not all(
            self.graph.kind(one) in BROADCASTING for one in self.graph.users(index)
        ):
            sizes = (np.asarray(value.shape, np.int32) for value in (two, three))
            shape = tuple(-1 if at == axis else size for at, size in enumerate(two.shape))
            broadcast = self.graph.add_tensor("rows", two.dtype, shape)
            computed = self._computed(*sizes)
            operator = self.graph.make("BROADCAST_TO", [new, computed], [broadcast])
            self._insert(operator)
            new = broadcast
        self.graph.replace(index, new)

    def _numbered(self, index, two, three, axis):
        """Replaces a constant that counts the examples, first + number * step, by a formula.

        Lookups of one element for each example have such a one among their indices.
        """
        if two.dtype != np.int32:
            return False
        first, step = two.take([0], axis), two.take([1], axis) - two.take([0], axis)
        sizes = [-1 if at == axis else 1 for at in range(two.ndim)]
        if (two.shape[axis], three.shape[axis]) != self.sizes or any(
            not np.array_equal(one, first + step * np.arange(len_).reshape(sizes))
            for one, len_ in zip((two, three), self.sizes, strict=True)
        ) or not step.any():  # fmt: skip
            return False
        graph, shape = self.graph, tuple(-1 if at == axis else size
                                         for at, size in enumerate(two.shape))  # fmt: skip
        batch = self._batch_size()
        limit = graph.add_tensor("batch", np.int32, ())
        count, counted = (
            graph.add_tensor("count", np.int32, one)
            for one in ((-1,), [-1 if size == -1 else 1 for size in shape])
        )
        zero, one, none, counts = (
            graph.add_constant("count", np.int32(value)) for value in (0, 1, [], sizes)
        )
        stepped, total = (graph.add_tensor("count", np.int32, shape) for _ in range(2))
        first, step = (graph.add_constant("count", value) for value in (first, step))
        for operator in (
            graph.make("RESHAPE", [batch, none], [limit]),
            graph.make("RANGE", [zero, limit, one], [count], schema.RangeOptionsT()),
            graph.make("RESHAPE", [count, counts], [counted]),
            graph.make("MUL", [counted, step], [stepped], schema.MulOptionsT()),
            graph.make("ADD", [stepped, first], [total], schema.AddOptionsT()),
        ):
            self._insert(operator)
        graph.replace(index, total)
        return True

    def _computed(self, two, three):
        """Adds the tensor slope * batch + offset that is `two` for 2 examples and `three` for 3."""
        slope = three - two
        offset = two - self.sizes[0] * slope
        product = self.graph.add_tensor("sizes", two.dtype, two.shape)
        total = self.graph.add_tensor("sizes", two.dtype, two.shape)
        batch = self._batch_size()
        if two.dtype != np.int32:
            raise BatchDependent(f"sizes are {two.dtype}, expected int32")
        slope, offset = (self.graph.add_constant("sizes", value) for value in (slope, offset))
        self._insert(self.graph.make("MUL", [batch, slope], [product], schema.MulOptionsT()))
        self._insert(self.graph.make("ADD", [product, offset], [total], schema.AddOptionsT()))
        return total

    def _batch_size(self):
        """The tensor (1,) that holds the batch size; the first call adds its operators."""
        if self._size is None:
            if self._source is None:
                raise BatchDependent("no input has the batch as a dimension of its own")
            source, axis = self._source
            rank = len(self.graph.shape(source))
            shape = self.graph.add_tensor("shape", np.int32, (rank,))
            self._size = self.graph.add_tensor("batch", np.int32, (1,))
            begin, size = (self.graph.add_constant("at", np.int32([one])) for one in (axis, 1))
            options = schema.ShapeOptionsT()
            options.outType = schema.TensorType.INT32
            self._made = 0
            self._insert(self.graph.make("SHAPE", [source], [shape], options))
            slice_ = self.graph.make(
                "SLICE", [shape, begin, size], [self._size], schema.SliceOptionsT()
            )
            self._insert(slice_)
        return self._size

    def _insert(self, operator):
        """Puts an operator before the original ones, behind those inserted earlier."""
        self.graph.operators.insert(self._made, operator)
        self._made += 1


def _values(graph, index):
    """A constant's value; its raw bytes if it is of a type that sizes do not have."""
    tensor = graph.tensor(index)
    data = graph.model.buffers[tensor.buffer].data
    if data is None:
        return None
    value = graph.constant(index)
    return np.frombuffer(bytes(data), np.uint8) if value is None else value


def _name(graph, index):
    return graph.tensor(index).name.decode()


def _plain(options):
    """Options as nested plain values, for a comparison."""
    if hasattr(options, "__dict__"):
        return {name: _plain(value) for name, value in vars(options).items()}
    return options.tolist() if isinstance(options, np.ndarray) else options
