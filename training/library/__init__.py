"""Metrics a config can name besides those of training/metrics.py.

metrics.py    sums over a data set: F1, IoU, Dice, perplexity, calibration;
              and over the epoch: AUROC, average precision, R2, correlations
"""
