"""Smaller .tflite files: half-precision weights, 8-bit weights, or 8-bit arithmetic throughout.

Google's AI Edge Quantizer (https://github.com/google-ai-edge/ai-edge-quantizer) rewrites the float
file, for any batch size, in a process of its own, because it may crash.

    float16  weights in half precision; computed in float32
    dynamic  weights in 8 bits, activations quantised at run time
    int8     weights and activations in 8 bits, their ranges measured on training examples;
             inputs and outputs stay floats
"""

import contextlib
from pathlib import Path

from inference.export.worker import Worker
from utils import UserError

KINDS = ("float16", "dynamic", "int8")
CALIBRATION_EXAMPLES = 512  # of the training data, for int8


def quantize(tflite, kind, examples, log):
    """Returns the bytes of a .tflite file, smaller by a kind of KINDS.

    Args:
        tflite: path of the float32 file.
        kind: one of KINDS.
        examples: batches {input: array}, for int8.
        log: file that receives what the quantizer prints.
    """
    with Worker(log) as worker:
        return worker.run(_quantize, str(tflite), kind, examples if kind == "int8" else None)


def _quantize(tflite, kind, examples):
    from ai_edge_quantizer import qtyping, quantizer, recipe

    from inference.graph import tflite_graph

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
            for name in (qtyping.TFLOperationName.INPUT, qtyping.TFLOperationName.OUTPUT):
                work.update_quantization_recipe(".*", name, algorithm_key="no_quantize")
    try:
        ranges = work.calibrate({"serving_default": examples}) if kind == "int8" else None
        model = tflite_graph.load(bytes(work.quantize(ranges).quantized_model))
    except (RuntimeError, ValueError, KeyError, NotImplementedError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{kind}: an operator of the file cannot be quantised: {reason}") from None
    original = tflite_graph.load(Path(tflite).read_bytes())
    tflite_graph.restore_interface(model, original)
    tflite_graph.raise_versions(model)
    return tflite_graph.dump(model)
