"""Rewrites of graphs: of the jaxpr, the TFLite model and the ONNX model."""

METADATA = "jax_template"  # the key under which a file keeps its metadata, a JSON object
