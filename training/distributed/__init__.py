"""Training on several devices and in several processes, and the signals that stop a run."""
