"""Where the numbers of a run are written: console, metrics.jsonl, TensorBoard, W&B, MLflow.

A tracker is a small class. The config names it in `training.trackers`, by one of the names in
training/tracking/backends.py or as "package.module:Class", alone or with arguments as
{"name": ..., "args": {...}}; see docs/trackers.md:

    class MyTracker:
        def __init__(self, folder, config, **args): ...
        def scalars(self, step, values): ...
        def image(self, step, name, array): ...       # this and what follows may be left out
        def text(self, step, name, text): ...
        def histogram(self, step, name, values): ...
        def artifact(self, path): ...
        def close(self): ...

    __init__   folder: Path of the run folder. config: the run's Config. args: those in the config.
               One that is called `step` is given the batches that a resumed run has trained.
    scalars    step: the number of batches trained so far. values: {name: int or float}, all finite,
               "epoch" among them, and "batch" where it is not the end of an epoch.
    image      array: uint8 (height, width, channels), of 1, 3 or 4 channels.
    text       text: str.
    histogram  values: (count,) float64, finite.
    artifact   path: the finished run's last checkpoint, a file or a folder.
    close      the run ends; also called after an error.

Only the main process has trackers. One that does not start stops the run before it trains. One that
fails later is named in a warning, and training continues. A resumed run creates its trackers again,
and repeats the steps since the checkpoint with the same values.
"""
