"""Exported files in use: reading inputs, running a file, and the demo's page."""
