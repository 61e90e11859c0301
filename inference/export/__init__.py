"""From a trained run to files: JAX -> TFLite -> ONNX, and quantisation."""
