"""Names, shapes and metadata of a .tflite file's inputs and outputs."""

import copy
import json
import re

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from inference.graph.tflite_graph import Graph, graphs


def rename(model, inputs, outputs):
    """Names the inputs and outputs, in the network's order; they were "args_0", "output_0", ..."""
    (signature,) = model.signatureDefs
    graph = Graph(model, model.subgraphs[signature.subgraphIndex])
    used = {entry.tensorIndex for entry in signature.inputs}
    for entry in signature.outputs:
        if entry.tensorIndex in used:  # it is an input, or another output as well
            entry.tensorIndex = _copied(graph, entry.tensorIndex)
        used.add(entry.tensorIndex)
    for one, names in ((signature.inputs, inputs), (signature.outputs, outputs)):
        one.sort(key=lambda entry: int(re.search(rb"(\d*)$", entry.name)[1] or 0))
        for entry, name in zip(one, names, strict=True):
            entry.name = name.encode()
            graph.tensor(entry.tensorIndex).name = entry.name
    graph.subgraph.inputs = [entry.tensorIndex for entry in signature.inputs]
    graph.subgraph.outputs = [entry.tensorIndex for entry in signature.outputs]


def rename_plainly(model):
    """Names the inputs and outputs by their positions, which no other tensor is called."""
    graph = graphs(model)[0]
    for kind in ("inputs", "outputs"):
        for at, index in enumerate(getattr(graph.subgraph, kind)):
            graph.tensor(index).name = plain_name(kind, at).encode()


def plain_name(kind, at):
    """Returns the name that `rename_plainly` gives to an input or output."""
    return f"network_{kind}_{at}"


def restore_interface(model, original):
    """Restores the names and shapes of inputs and outputs, in the places of the original model."""
    (signature,), (first,) = model.signatureDefs, original.signatureDefs
    graph, other = graphs(model)[0], graphs(original)[0]
    for kind in ("inputs", "outputs"):
        tensors = dict(
            zip(getattr(other.subgraph, kind), getattr(graph.subgraph, kind), strict=True)
        )
        firsts = {entry.name: entry.tensorIndex for entry in getattr(first, kind)}
        for entry in getattr(signature, kind):
            entry.tensorIndex = int(tensors[firsts[entry.name]])
            _rename_others(graph, entry.name)
            graph.tensor(entry.tensorIndex).name = entry.name
            graph.set_shape(entry.tensorIndex, other.shape(firsts[entry.name]))


def _rename_others(graph, name):
    """Gives tensors that have a name another one."""
    for tensor in graph.subgraph.tensors:
        if tensor.name == name:
            tensor.name = name + b"_inside"


def outputs_in_int8(model):
    """Makes outputs int8 that a quantizer turned back to floats; all others it has left in int8."""
    graph = graphs(model)[0]
    graph.subgraph.outputs = list(map(int, graph.subgraph.outputs))
    for at, index in enumerate(graph.subgraph.outputs):
        maker = graph.maker(index)
        if maker is not None and graph.kind(maker) == "DEQUANTIZE":
            graph.subgraph.outputs[at] = maker.inputs[0]
            graph.remove_unused(maker)


def note_scales(model, name):
    """Writes dtype, scale and zero point of the inputs and outputs into the metadata."""
    metadata, (signature,), graph = (
        read_metadata(model, name),
        model.signatureDefs,
        graphs(model)[0],
    )
    for kind in ("inputs", "outputs") if metadata else ():
        for entry in getattr(signature, kind):
            quantised = graph.tensor(entry.tensorIndex).quantization
            if quantised is not None and quantised.scale is not None:
                metadata[kind][entry.name.decode()] |= {
                    "dtype": "int8",
                    "scale": float(quantised.scale[0]),
                    "zero_point": int(quantised.zeroPoint[0]),
                }
    write_metadata(model, name, metadata)


def write_metadata(model, name, metadata):
    """Writes a JSON object into the model, under a name."""
    entry, buffer = schema.MetadataT(), schema.BufferT()
    buffer.data = np.frombuffer(json.dumps(metadata).encode(), np.uint8)
    entry.name, entry.buffer = name.encode(), len(model.buffers)
    model.buffers.append(buffer)
    model.metadata = [*(one for one in model.metadata or [] if one.name != entry.name), entry]


def read_metadata(model, name):
    """Returns the JSON object under a name; {} if the model has none."""
    return json.loads(metadata_content(model, name))


def metadata_content(model, name):
    """Returns the bytes of the JSON under a name; those of {} if the model has none."""
    for entry in model.metadata or []:
        if entry.name == name.encode():
            return bytes(model.buffers[entry.buffer].data)
    return b"{}"


def _copied(graph, index):
    """Adds a copy of a tensor at the end of the graph; returns its index."""
    tensor = copy.copy(graph.tensor(index))
    tensor.buffer = 0
    graph.subgraph.tensors.append(tensor)
    new = len(graph.subgraph.tensors) - 1
    shape = graph.add_constant("shape", np.int32(graph.shape(index)))
    graph.operators.append(graph.make("RESHAPE", [index, shape], [new]))
    return new
