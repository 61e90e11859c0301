"""Small things that every other folder may use: files, trees, timing, records."""
