"""Saving, finding, reading and restoring checkpoints."""
