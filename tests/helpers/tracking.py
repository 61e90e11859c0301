"""Trackers that tests name in a config, and readers of the files that trackers write."""

import json
import struct
import time
from pathlib import Path

from training.tracking.jsonl import LinesFile

RECORDED = "recorded.jsonl"
WAIT = 30  # seconds at most for the files of Weights & Biases


def json_lines(path):
    """The objects of a file of JSON lines."""
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


class Recorder:
    """A tracker that writes every call as a line of a file in the run folder.

    Args:
        folder: the run folder.
        config: the run's Config.
        notes: an argument from the config, recorded.
        file: the name of the file.
    """

    def __init__(self, folder, config, notes="", file=RECORDED):
        path = folder / file
        self._file = LinesFile(path, path.stat().st_size if path.exists() else 0)
        self._record("start", config.title, notes)

    def scalars(self, step, values):
        """Records a call."""
        self._record("scalars", step, values)
        values.clear()  # what one tracker does to its values is not seen by the next

    def image(self, step, name, array):
        """Records a call."""
        self._record("image", step, name, array.tolist())

    def text(self, step, name, text):
        """Records a call."""
        self._record("text", step, name, text)

    def histogram(self, step, name, values):
        """Records a call."""
        self._record("histogram", step, name, values.tolist())

    def artifact(self, path):
        """Records a call."""
        self._record("artifact", str(path))

    def close(self):
        """Records a call."""
        self._record("close")
        self._file.close()

    def _record(self, *call):
        self._file.append({"call": call})


class Failing(Recorder):
    """A tracker with an error in one of its methods.

    Args:
        folder: the run folder.
        config: the run's Config.
        method: the name of the method.
    """

    def __init__(self, folder, config, method, file=RECORDED):
        super().__init__(folder, config, file=file)
        setattr(self, method, self._fail)

    def _fail(self, *args):
        self._record("fail")
        raise KeyError("a key of the tracker")


class OnlyScalars:
    """A tracker with the one method that it must have."""

    def __init__(self, folder, config):
        self._path = folder / "only.jsonl"

    def scalars(self, step, values):
        """Writes a line."""
        with open(self._path, "a") as file:
            file.write(json.dumps({"step": step} | values) + "\n")


class WithoutScalars:
    """A tracker without that method."""

    def __init__(self, folder, config):
        self.image = self.close = print


def recorded(folder, file=RECORDED):
    """The calls that a Recorder got."""
    return [line["call"] for line in json_lines(folder / file)]


def events(folder):
    """The values of TensorBoard's event files: {(name, step): value}."""
    found = {}
    for event in event_records(folder):
        for value in event.summary.value:
            found[value.tag, event.step] = value
    return found


def event_records(folder):
    """Yields the Events of TensorBoard's files, which TFRecord frames."""
    from tensorboardX.proto.event_pb2 import Event

    for file in sorted(folder.glob("events.out.tfevents.*"), key=lambda one: one.suffix):
        data = file.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            yield Event.FromString(data[12 : 12 + length])
            data = data[16 + length :]


def scalar_events(folder):
    """The scalars of TensorBoard's event files: {(name, step): number}."""
    return {key: value.simple_value for key, value in events(folder).items()}


def wandb_records(folder):
    """The records of the offline files of Weights & Biases, once each ends in its exit record.

    A process of its own writes them, which may be a moment later than the run.
    """
    from wandb.proto.wandb_internal_pb2 import Record

    deadline = time.monotonic() + WAIT
    while True:
        files = sorted(folder.rglob("run-*.wandb"))
        data = [record for file in files for record in _log_records(file.read_bytes())]
        found = [Record.FromString(record) for record in data]
        exits = sum(one.WhichOneof("record_type") == "exit" for one in found)
        if exits == len(files) or time.monotonic() > deadline:
            return found
        time.sleep(0.05)


def wandb_history(folder):
    """The values that Weights & Biases was given, a dict for each call: [{name: value}]."""
    return [
        {
            (item.key or "/".join(item.nested_key)): json.loads(item.value_json)
            for item in record.history.item
        }
        for record in wandb_records(folder)
        if record.WhichOneof("record_type") == "history"
    ]


def _log_records(data, block=32768):
    """The records of a file in LevelDB's log format, after the 7 bytes of W&B's own header.

    https://github.com/google/leveldb/blob/main/doc/log_format.md
    """
    position, record = 7, b""
    while position + 7 <= len(data):
        if block - position % block < 7:  # the rest of a block is too short for a header
            position += block - position % block
            continue
        _, length, kind = struct.unpack("<IHB", data[position : position + 7])
        if position + 7 + length > len(data):  # being written
            return
        record += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            yield record
            record = b""


def of_kind(folder, kind):
    """Returns the records of a kind that Weights & Biases wrote in a folder."""
    found = wandb_records(folder)
    return [getattr(one, kind) for one in found if one.WhichOneof("record_type") == kind]
