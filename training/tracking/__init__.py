"""Where a run's numbers go: console, metrics.jsonl, TensorBoard, Weights & Biases."""
