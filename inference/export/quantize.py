"""Smaller files: half-precision weights, 8-bit weights, or 8-bit arithmetic throughout.

Google's AI Edge Quantizer (https://github.com/google-ai-edge/ai-edge-quantizer) rewrites the
.tflite file, the tools of onnxruntime the .onnx file, for any batch size, in a process of its own,
because they may crash.

    float16  weights in half precision; computed in float32
    dynamic  weights in 8 bits, activations quantised at run time
    int8     weights and activations in 8 bits, their ranges measured on training examples;
             inputs and outputs stay floats
    int8-io  the same with inputs and outputs in int8, for microcontrollers
    onnx-float16, onnx-int8  .onnx files in half precision, or with 8-bit arithmetic between
             QuantizeLinear and DequantizeLinear
"""

import contextlib
import re
import tempfile
from pathlib import Path

from inference.export.worker import Worker
from utils import UserError

IN_INT8 = ("int8", "int8-io", "onnx-int8")  # they need examples
KINDS = ("float16", "dynamic", "int8", "int8-io", "onnx-float16", "onnx-int8")
CALIBRATION_EXAMPLES = 512  # of the training data, for int8


def quantize(file, kind, examples, log):
    """Returns the bytes of a file that is smaller by a kind of KINDS.

    Args:
        file: path of the float32 file: .onnx for the last two kinds, .tflite for the others.
        kind: one of KINDS.
        examples: batches {input: array}, for those in int8.
        log: file that receives what the quantizer prints.
    """
    with Worker(log) as worker:
        function = _quantize_onnx if kind.startswith("onnx") else _quantize
        return worker.run(function, str(file), kind, examples if kind in IN_INT8 else None)


def c_header(tflite):
    """Returns a C header with the bytes of a .tflite file, as programs of microcontrollers have it.

    Beside them stand the scale and the zero point of each input and output in int8.
    """
    from inference.graph import METADATA, tflite_graph, tflite_interface

    content, lines = tflite.read_bytes(), []
    name = re.sub(r"\W", "_", tflite.name.removesuffix(".tflite"))
    name = f"model_{name}" if name[0].isdigit() else name
    metadata = tflite_interface.read_metadata(tflite_graph.load(content), METADATA)
    for end, about in {**metadata.get("inputs", {}), **metadata.get("outputs", {})}.items():
        if "scale" in about:
            ending = re.sub(r"\W", "_", end)
            lines += [
                f"static const float {name}_{ending}_scale = {about['scale']!r}f;",
                f"static const int {name}_{ending}_zero_point = {about['zero_point']};",
            ]
    rows = (content[at : at + 16] for at in range(0, len(content), 16))
    numbers = [f"    {', '.join(map(str, row))}," for row in rows]
    return "\n".join([
        "#ifdef __cplusplus", "alignas(16)", "#else", "_Alignas(16)", "#endif",
        f"static const unsigned char {name}[] = {{", *numbers, "};",
        f"static const unsigned int {name}_len = {len(content)};", *lines, "",
    ])  # fmt: skip


def needs_unrolled(tflite, kind):
    """Whether a kind takes no loops, and the .tflite file has some."""
    from inference.graph import tflite_graph

    kinds = (
        graph.kind(one)
        for graph in tflite_graph.graphs(tflite_graph.load(tflite.read_bytes()))
        for one in graph.operators
    )
    return kind in ("int8", "int8-io") and "WHILE" in kinds


def _quantize_onnx(file, kind, examples):
    import onnx

    if kind == "onnx-float16":
        from onnxruntime.transformers.float16 import convert_float_to_float16

        model = convert_float_to_float16(onnx.load(file), keep_io_types=True)
        return model.SerializeToString()
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

    class Examples(CalibrationDataReader):
        left = iter(examples)

        def get_next(self):
            return next(self.left, None)

    with tempfile.NamedTemporaryFile(suffix=".onnx") as made:
        quantize_static(file, made.name, Examples(), quant_format=QuantFormat.QDQ, per_channel=True)
        model = onnx.load(made.name)
    del model.metadata_props[:]
    model.metadata_props.extend(onnx.load(file).metadata_props)
    return model.SerializeToString()


def _quantize(tflite, kind, examples):
    from ai_edge_quantizer import qtyping, quantizer, recipe

    from inference.graph import METADATA, tflite_graph, tflite_interface, tflite_operators

    work = quantizer.Quantizer(tflite)
    with contextlib.suppress(KeyError):  # raised by a file without anything to quantise
        if kind == "float16":
            half = qtyping.TensorQuantizationConfig(16, dtype=qtyping.TensorDataType.FLOAT)
            work.update_quantization_recipe(
                ".*",
                qtyping.TFLOperationName.ALL_SUPPORTED,
                qtyping.OpQuantizationConfig(
                    weight_tensor_config=half,
                    compute_precision=qtyping.ComputePrecision.FLOAT,
                    explicit_dequantize=True,
                ),
                algorithm_key="float_casting",
            )
        elif kind == "dynamic":
            work.load_quantization_recipe(recipe.dynamic_wi8_afp32())
        else:
            work.load_quantization_recipe(recipe.static_wi8_ai8())
            ends = (qtyping.TFLOperationName.INPUT, qtyping.TFLOperationName.OUTPUT)
            for name in ends if kind == "int8" else ():
                work.update_quantization_recipe(".*", name, algorithm_key="no_quantize")
    try:
        ranges = work.calibrate({"serving_default": examples}) if examples else None
        model = tflite_graph.load(bytes(work.quantize(ranges).quantized_model))
    except (RuntimeError, ValueError, KeyError, NotImplementedError) as error:
        reason = " ".join(str(error).split())[:200]
        loop = "while" in reason and "; loops need a known number of steps, as of lax.scan"
        raise UserError(
            f"{kind}: an operator of the file cannot be quantised{loop or ''}: {reason}"
        ) from None
    original = tflite_graph.load(Path(tflite).read_bytes())
    if kind == "int8-io":
        tflite_interface.outputs_in_int8(model)
    tflite_interface.restore_interface(model, original)
    if kind == "int8-io":
        tflite_interface.note_scales(model, METADATA)
    tflite_operators.raise_versions(model)
    return tflite_graph.dump(model)
