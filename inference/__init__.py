"""Exports trained networks to files that other software runs, and uses these files."""
