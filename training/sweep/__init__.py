"""Optional: training a config with every combination of some values.

plan.py        which values to try; the config and the folder of each run
execute.py     trains the runs, several at a time, each in its own process
schedulers.py  files that let SLURM or Weights & Biases run a sweep instead
search.py      optional: Optuna chooses the values, and ends bad runs early
results.py     the table of the settings, sweep.csv, and sweep.html, which needs training/report
"""
