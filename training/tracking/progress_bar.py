"""The progress bar of an epoch, on a terminal."""

import contextlib
import logging
import sys

LOG = logging.getLogger("main")


@contextlib.contextmanager
def progress_bar(loader, epoch, done):
    """Yields a function that advances the bar by a number of batches, if there is a terminal.

    `done` examples of the epoch are already done.
    """
    from tqdm import tqdm
    from tqdm.contrib.logging import logging_redirect_tqdm

    if not (sys.stdout.isatty() and LOG.isEnabledFor(logging.INFO)):
        yield lambda batches: None
        return
    total = loader.examples
    bar = tqdm(
        desc=f"Epoch {epoch}", total=total, initial=min(done, total), unit=" images", leave=False
    )
    with bar, logging_redirect_tqdm([LOG]):
        yield lambda batches: bar.update(min(batches * loader.batch_size, total - bar.n))
