"""Trained networks as files that other software runs."""
