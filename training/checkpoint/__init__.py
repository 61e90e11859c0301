"""Checkpoints of a run: their names, their formats, saving, reading and restoring.

naming.py        the files' names; which one of a run folder is the latest, which one the best
single_file.py   the usual format: one file with checksums, in the safetensors format
orbax_folder.py  folders that Orbax writes, for states too large to be gathered (`devices.orbax`)
saver.py         saves in the background, and keeps the latest few checkpoints and the best
reading.py       reads a checkpoint of any format, and checks it
restore.py       fills a tree of arrays from a checkpoint, strictly; names of older versions
"""
