"""The network that is exported, as a function of arrays, with the metadata that its files carry.

The parameters are constants of the function. For the converters, convolutions and pooling are XLA's
own operators, which the converters recognise (`model.modules.plain_operators`); the .stablehlo file
stays with JAX, and keeps the forms that are fastest on each platform.
"""

import itertools
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from inference.graph.jax_graph import REFUSED, exportable, named, operations, refusal
from inference.graph.jax_substitutes import unroll
from inference.verify.stablehlo import LEAVES
from model.modules import plain_operators
from utils import ROOT, UserError

PLATFORMS = ("cpu", "cuda", "tpu")  # that the .stablehlo file runs on


class Array(NamedTuple):
    """An input or output of a network."""

    name: str
    shape: tuple  # without the batch
    dtype: np.dtype


class Network(NamedTuple):
    """A trained network, ready to be exported."""

    function: Callable  # (*inputs) -> tuple of outputs
    inputs: list[Array]
    outputs: list[Array]
    metadata: dict[str, Any]  # of JSON values; written into the files

    @property
    def names(self):
        """The names of the inputs and those of the outputs."""
        return [one.name for one in self.inputs], [one.name for one in self.outputs]

    @property
    def summary(self):
        """The number of parameters, and the inputs and outputs, in one line."""
        inputs, outputs = map(_words, (self.inputs, self.outputs))
        return f"network of {self.metadata['parameters']} parameters: {inputs} -> {outputs}"


def describe(function, inputs, output_names=None, metadata=None, batch=None):
    """Returns the Network of a function; traces the function to find its outputs.

    Args:
        function: `(*inputs) -> a tree of outputs`.
        inputs: list of Array.
        output_names: a name for each output; None: a dict's keys, or "output".
        metadata: dict of JSON values; the shapes and dtypes of inputs and outputs are added.
        batch: the batch size that the metadata name; None: any.

    Raises:
        UserError: the function does not take these inputs, or an output lacks the batch.
    """
    arrays = [_example(one, 2) for one in inputs]
    try:
        tree = jax.eval_shape(function, *arrays)
    except (TypeError, ValueError) as error:
        raise UserError(f"the network does not take the input {_words(inputs)}: {error}") from None
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    names, outputs = output_names or [_output_name(path) for path, _ in leaves], []
    for name, (_, leaf) in zip(names, leaves, strict=True):
        if leaf.shape[:1] != (2,):
            raise UserError(
                f"the output {name} has shape {leaf.shape} for a batch of 2; expected "
                "the batch as its first dimension"
            )
        outputs.append(Array(name, leaf.shape[1:], leaf.dtype))
    outputs = _distinct(outputs, [one.name for one in inputs])
    shapes = {
        kind: {
            one.name: {"shape": [batch or "batch", *one.shape], "dtype": str(np.dtype(one.dtype))}
            for one in arrays
        }
        for kind, arrays in (("inputs", inputs), ("outputs", outputs))
    }

    def flat(*inputs):
        return tuple(jax.tree.leaves(function(*inputs)))

    return Network(flat, inputs, outputs, (metadata or {}) | shapes)


def lower(network, batch, unrolled=False):
    """Returns the network for one batch size as bytes of StableHLO that the converter can read.

    If `unrolled`, the steps of its scans stand one after the other.
    """
    arrays = [_example(one, batch) for one in network.inputs]
    with plain_operators():
        plain = network.function
        if unrolled:
            plain = exportable(plain, *arrays, substitutes={"scan": unroll}, refused={})
        function = jax.jit(exportable(plain, *arrays))
        return bytes(jax.export.export(function, platforms=["cpu"])(*arrays).serialize())


def stablehlo(network, static=None):
    """Returns the network as bytes that `jax.export.deserialize` reads on any platform.

    It is for any batch size, unless `static` fixes one.
    """
    (batch,) = (static,) if static else jax.export.symbolic_shape("batch")
    arrays = [_example(one, batch) for one in network.inputs]
    limit = jax.config.jax_traceback_in_locations_limit
    jax.config.update("jax_traceback_in_locations_limit", 0)  # no paths of this machine in the file
    try:
        exported = jax.export.export(jax.jit(network.function), platforms=PLATFORMS)(*arrays)
    except TypeError as error:
        if "_DimExpr" not in str(error):
            raise
        raise UserError(
            f"{_user_line(error)}: a .stablehlo file for any batch needs a network that does not "
            "use the batch size as a plain number: write x.shape[0] in place of len(x), or fix it "
            "with --static"
        ) from None
    finally:
        jax.config.update("jax_traceback_in_locations_limit", limit)
    if found := LEAVES.search(exported.mlir_module()):
        _refuse_calls(network, found[1])
    return bytes(exported.serialize())


def lines_of(network):
    """Yields (primitive, line of the user's file) of each operation of a network."""
    for equation, _, line in _operations(network):
        yield equation.primitive.name, line


def _operations(network):
    arrays = [_example(one, 2) for one in network.inputs]
    return operations(jax.make_jaxpr(network.function)(*arrays).jaxpr)


def _refuse_calls(network, name):
    """Refuses a network that calls libraries of this machine, with the lines that do."""
    faults = [
        refusal(equation, "a .stablehlo file", layer=layer, line=line)
        for equation, layer, line in _operations(network)
        if named(equation) in REFUSED
    ]
    unknown = f"a .stablehlo file for all platforms cannot hold {name}; leave it out"
    raise UserError("\n".join(dict.fromkeys(faults)) or unknown)


def _user_line(error):
    """The last line of the user's own files that an error came through."""
    frames = traceback.extract_tb(error.__traceback__)
    own = str(ROOT / "inference")
    theirs = [
        one
        for one in frames
        if "site-packages" not in one.filename and not one.filename.startswith(own)
    ]
    return f"{theirs[-1].filename}:{theirs[-1].lineno} ({theirs[-1].name})" if theirs else "?"


def _example(array, batch):
    return jax.ShapeDtypeStruct((batch, *array.shape), array.dtype)


def _words(arrays):
    return ", ".join(
        f"{one.name} {one.dtype} ({', '.join(map(str, ('batch', *one.shape)))})" for one in arrays
    )


def at_the_door(array):
    """Returns an array of data as the files take it: integers in at most 32 bits, floats in 32.

    Networks compute in 32 bits, and no runtime has all other types.
    """
    array = np.asarray(array)
    if jax.numpy.issubdtype(array.dtype, np.floating):
        return array.astype(np.float32)
    narrow = {np.dtype(np.int64): np.int32, np.dtype(np.uint64): np.uint32}.get(array.dtype)
    if narrow is None:
        return array
    limits = np.iinfo(narrow)
    if array.size and not (limits.min <= array.min() and array.max() <= limits.max):
        raise UserError(
            f"the data have {array.dtype} from {array.min()} to {array.max()}, and the network and "
            f"its files compute with {np.dtype(narrow)}; store smaller numbers"
        )
    return array.astype(narrow)


def _output_name(path):
    name = jax.tree_util.keystr(path, simple=True, separator="_")
    return "output" if not name else f"output_{name}" if name.isdigit() else name


def _distinct(outputs, inputs):
    """The outputs under names of their own: a file has one value for each name."""
    found = []
    for one in outputs:
        wanted = f"output_{one.name}" if one.name in inputs else one.name
        taken = {*inputs, *(other.name for other in found)}
        others = (f"{wanted}_{count}" for count in itertools.count(2))
        name = next(name for name in itertools.chain([wanted], others) if name not in taken)
        found.append(one._replace(name=name))
    return found
