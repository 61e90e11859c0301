"""Rewrites of graphs: of the jaxpr, the TFLite model and the ONNX model."""

METADATA = "jax_template"  # the key under which a file keeps its metadata, a JSON object
EXACT_GELU = "exact_gelu"  # the scope that jax_graph.py gives to exact GELU
INFINITE = 3.4028233e38  # what stands for an infinity on the way through TensorFlow's converter
