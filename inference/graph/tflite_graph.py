"""A .tflite file as a graph that can be read and changed.

The schema (https://github.com/google-ai-edge/LiteRT, `schema.fbs`): a model holds subgraphs and
buffers; a subgraph holds tensors, and operators in the order they run; a tensor whose buffer has
data is a constant. A dimension of -1 in `shapeSignature` takes any size.
"""

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

KINDS = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
DTYPES = {
    schema.TensorType.FLOAT32: np.float32,
    schema.TensorType.INT32: np.int32,
    schema.TensorType.INT64: np.int64,
    schema.TensorType.INT16: np.int16,
    schema.TensorType.INT8: np.int8,
    schema.TensorType.UINT32: np.uint32,
    schema.TensorType.UINT8: np.uint8,
    schema.TensorType.BOOL: np.bool_,
}
FLOAT = schema.TensorType.FLOAT32
TENSOR_TYPES = {np.dtype(dtype): code for code, dtype in DTYPES.items()}
FIRST_VERSIONS = {"BROADCAST_TO": 2}  # of kinds that became built in later than version 1


def load(content):
    """Returns the model of a file's bytes."""
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    for subgraph in model.subgraphs:
        for operator in subgraph.operators:  # comparing plain integers is faster
            operator.inputs = [int(index) for index in operator.inputs]
            operator.outputs = [int(index) for index in operator.outputs]
    return model


def dump(model):
    """Returns the bytes of a model, without tensors and buffers that nothing uses."""
    _drop_unused(model)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def graphs(model):
    """Returns the Graph of every subgraph; the first is the network, others are bodies of loops."""
    return [Graph(model, subgraph) for subgraph in model.subgraphs]


class Graph:
    """One subgraph; tensors are named by their index in it, operators are the schema's objects."""

    def __init__(self, model, subgraph):
        self.model, self.subgraph = model, subgraph

    @property
    def operators(self):
        """The operators, in the order they run."""
        return self.subgraph.operators

    def kind(self, operator):
        """Returns what an operator does: "CONV_2D"."""
        return KINDS[self.model.operatorCodes[operator.opcodeIndex].builtinCode]

    def tensor(self, index):
        """Returns the schema's tensor."""
        return self.subgraph.tensors[index]

    def shape(self, index):
        """Returns a tensor's shape, -1 where any size is allowed."""
        tensor = self.tensor(index)
        signature = tensor.shapeSignature if tensor.shapeSignature is not None else tensor.shape
        return tuple(int(size) for size in ([] if signature is None else signature))

    def constant(self, index):
        """Returns the value of a constant, or None."""
        tensor = self.tensor(index)
        data = self.model.buffers[tensor.buffer].data
        if data is None or tensor.type not in DTYPES:
            return None
        return np.frombuffer(bytes(data), DTYPES[tensor.type]).reshape(self.shape(index))

    def users(self, index):
        """Returns the operators that have a tensor as input."""
        return [one for one in self.operators if index in one.inputs]

    def maker(self, index):
        """Returns the operator that has a tensor as output, or None."""
        return next((one for one in self.operators if index in one.outputs), None)

    def has_one_user(self, index):
        """Whether one operator uses a tensor, which is no output of the graph."""
        return len(self.users(index)) == 1 and index not in self.subgraph.outputs

    def set_shape(self, index, shape):
        """Sets a tensor's shape, -1 where any size is allowed."""
        tensor = self.tensor(index)
        tensor.shape = [1 if size == -1 else size for size in shape]
        tensor.shapeSignature = list(shape) if -1 in shape else None

    def add_tensor(self, name, dtype, shape, value=None):
        """Adds a tensor, a constant if it has a value; returns its index."""
        tensor = schema.TensorT()
        # Readers of the format expect each name once.
        tensor.name = f"{name}_{len(self.subgraph.tensors)}".encode()
        tensor.type = TENSOR_TYPES[np.dtype(dtype)]
        tensor.buffer = 0  # the empty one
        if value is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(np.asarray(value, dtype).tobytes(), np.uint8)
            self.model.buffers.append(buffer)
            tensor.buffer = len(self.model.buffers) - 1
        self.subgraph.tensors.append(tensor)
        self.set_shape(len(self.subgraph.tensors) - 1, shape)
        return len(self.subgraph.tensors) - 1

    def add_constant(self, name, value):
        """Adds a constant; returns its index."""
        value = np.asarray(value)
        return self.add_tensor(name, value.dtype, value.shape, value)

    def make(self, kind, inputs, outputs, options=None):
        """Returns a new operator, not yet in its place among the others."""
        operator = schema.OperatorT()
        operator.opcodeIndex = self.code(kind)
        operator.inputs, operator.outputs = list(inputs), list(outputs)
        if options is not None:
            name = type(options).__name__.removesuffix("T")
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, name)
            operator.builtinOptions = options
        return operator

    def code(self, kind):
        """Returns the index of a kind of operator in the model's list of those it uses."""
        builtin = getattr(schema.BuiltinOperator, kind)
        for index, one in enumerate(self.model.operatorCodes):
            if one.builtinCode == builtin:
                return index
        new = schema.OperatorCodeT()
        new.builtinCode, new.deprecatedBuiltinCode = builtin, min(builtin, 127)
        new.version = FIRST_VERSIONS.get(kind, 1)
        self.model.operatorCodes.append(new)
        return len(self.model.operatorCodes) - 1

    def replace(self, old, new):
        """Replaces the tensor `old` by `new` in every operator and in the graph's outputs."""
        for operator in self.operators:
            operator.inputs = [new if index == old else index for index in operator.inputs]
        self.subgraph.outputs = [new if index == old else index for index in self.subgraph.outputs]
        for signature in self.model.signatureDefs or []:
            if self.model.subgraphs[signature.subgraphIndex] is self.subgraph:
                for output in signature.outputs:
                    output.tensorIndex = new if output.tensorIndex == old else output.tensorIndex

    def remove(self, operator):
        """Removes an operator."""
        self.subgraph.operators = [one for one in self.operators if one is not operator]

    def remove_unused(self, *operators):
        """Removes operators that nothing uses, then those that only they used."""
        for operator in operators:
            outputs = operator.outputs
            used = any(self.users(one) or one in self.subgraph.outputs for one in outputs)
            if not used and any(one is operator for one in self.operators):
                self.remove(operator)
                makers = (self.maker(index) for index in operator.inputs)
                self.remove_unused(*(maker for maker in makers if maker is not None))


def apply(graph, rules):
    """Applies rules, `(graph, operator) -> whether it changed the graph`, until none does."""
    changed = True
    while changed:
        changed = False
        for rule in rules:
            for operator in list(graph.operators):
                if operator in graph.operators:  # and not removed in the meantime
                    changed |= rule(graph, operator)


def layer_of(graph, operator):
    """Returns the layer of an operator ("stage0/norm"), by the scopes in its name.

    Where the converter gave it no name, the layer is that of the operator before it.
    """
    while operator is not None:
        name = graph.tensor(operator.outputs[0]).name.decode().split(";")[0]
        scopes = [part for part in name.split("/")[:-1] if not part.startswith("jit(")]
        if scopes:
            return "/".join(scopes)
        operator = graph.maker(operator.inputs[0])
    return "of the network itself"


def _drop_unused(model):
    """Removes tensors and buffers that no operator uses, and renumbers the others."""
    for subgraph in model.subgraphs:
        lists = [one for op in subgraph.operators for one in (op.inputs, op.outputs)]
        lists += [subgraph.inputs, subgraph.outputs]
        used = sorted({int(index) for one in lists for index in one if index >= 0})
        renumbered = {old: new for new, old in enumerate(used)} | {-1: -1}
        subgraph.tensors = [subgraph.tensors[index] for index in used]
        for operator in subgraph.operators:
            operator.inputs = [renumbered[int(index)] for index in operator.inputs]
            operator.outputs = [renumbered[int(index)] for index in operator.outputs]
        subgraph.inputs = [renumbered[int(index)] for index in subgraph.inputs]
        subgraph.outputs = [renumbered[int(index)] for index in subgraph.outputs]
        for signature in model.signatureDefs or []:
            if model.subgraphs[signature.subgraphIndex] is subgraph:
                for one in (*signature.inputs, *signature.outputs):
                    one.tensorIndex = renumbered[one.tensorIndex]
    # Buffer 0 is empty by convention: every tensor that is no constant has it.
    owners = [tensor for subgraph in model.subgraphs for tensor in subgraph.tensors]
    owners += model.metadata or []
    kept = sorted({0} | {owner.buffer for owner in owners})
    renumbered = {old: new for new, old in enumerate(kept)}
    model.buffers = [model.buffers[index] for index in kept]
    for owner in owners:
        owner.buffer = renumbered[owner.buffer]


def made_by(graph, index, kind):
    """Returns the operator that makes a tensor if it is of this kind, or None."""
    maker = graph.maker(index)
    return maker if maker is not None and graph.kind(maker) == kind else None
