"""Numbers, images, texts and histograms as TensorBoard's event files."""

import time
from pathlib import Path

BINS = 30  # of a histogram


class TensorBoard:
    """The tracker that writes event files into the run folder: `tensorboard --logdir saved`.

    Events are written at once, not by tensorboardX's thread: where that ends, as on a full disk,
    its queue fills up and the run would wait for it forever. `step` is where a resumed run
    continues; TensorBoard hides what an earlier file has after it.
    """

    def __init__(self, folder, config, step=0):
        from tensorboardX import summary
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto import event_pb2

        self._summary, self._events = summary, event_pb2
        earlier = any(Path(folder).glob("events.out.tfevents.*"))
        # By itself a file is named by the second; another start in it would overwrite the file.
        self._writer = EventsWriter(str(Path(folder) / "events"), f".{time.time_ns()}")
        if earlier:
            log = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            self._write(step + 1, session_log=log)

    def scalars(self, step, values):
        """Writes each value as a scalar of its name."""
        for name, value in values.items():
            self._write(step, self._summary.scalar(name, value))
        self._writer.flush()

    def image(self, step, name, array):
        """Writes a uint8 (height, width, channels) image."""
        self._write(step, self._summary.image(name, array, dataformats="HWC"))

    def text(self, step, name, text):
        """Writes a text, which TensorBoard shows as Markdown."""
        self._write(step, self._summary.text(name, text))

    def histogram(self, step, name, values):
        """Writes the histogram of (count,) numbers."""
        self._write(step, self._summary.histogram(name, values, BINS))

    def close(self):
        """Flushes and closes the file."""
        self._writer.close()

    def _write(self, step, summary=None, **event):
        event = self._events.Event(wall_time=time.time(), step=step, summary=summary, **event)
        self._writer.write_event(event)
