"""Several devices, several processes, and the signals that stop a run."""
