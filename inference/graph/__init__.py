"""Rewrites of graphs: of the jaxpr, the TFLite model and the ONNX model."""
