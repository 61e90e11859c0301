"""Where the numbers of a run are written: console, metrics.jsonl, TensorBoard, Weights & Biases.

A tracker is a small class with four methods. The config names it in `training.trackers`, by one of
the names in training/tracking/backends.py or as "package.module:Class", alone or with arguments as
{"name": ..., "args": {...}}:

    class MyTracker:
        def __init__(self, folder, config, **args): ...
        def scalars(self, step, values): ...
        def image(self, step, name, array): ...
        def artifact(self, path): ...
        def close(self): ...

    __init__   folder: Path of the run folder. config: the run's Config. args: those in the config.
    scalars    step: the number of batches trained so far. values: {name: int or float}, all finite,
               "epoch" among them, and "batch" where it is not the end of an epoch.
    image      array: uint8 (height, width, channels), of 1, 3 or 4 channels.
    artifact   path: the finished run's last checkpoint, a file or a folder.
    close      the run ends; also called after an error.

Only the main process has trackers. An exception in a tracker stops the run with an error that names
the tracker; the run can be resumed. A resumed run creates its trackers again, and repeats the steps
since the checkpoint with the same values.
"""
