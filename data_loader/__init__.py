"""Data sets, the loader that reads them in batches, and transforms that run on the device."""
