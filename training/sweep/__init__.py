"""Optional: training a config with every combination of some values.

plan.py        which values to try; the config and the folder of each run
execute.py     trains the runs, several at a time, each in its own process
schedulers.py  files that let SLURM or Weights & Biases run a sweep instead
results.py     the table of the settings, sweep.csv, and sweep.html, which needs training/report
"""
