"""Optional: training a config with every combination of some values."""
