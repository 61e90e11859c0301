"""Losses, metrics, optimizers and what else a run needs."""
