"""The progress bar of an epoch, on a terminal."""

import contextlib
import logging
import sys

LOG = logging.getLogger("main")
FORMAT = (
    "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{remaining} left, {rate_fmt}{postfix}]"
)


@contextlib.contextmanager
def progress_bar(loader, epoch, done):
    """Yields a function that advances the bar by a number of batches, if there is a terminal.

    The function also takes the loss to show; None leaves the bar without one. `done` examples of
    the epoch are already done.
    """
    from tqdm import tqdm
    from tqdm.contrib.logging import logging_redirect_tqdm

    if not (sys.stdout.isatty() and LOG.isEnabledFor(logging.INFO)):
        yield lambda batches, loss=None: None
        return
    total = loader.examples
    bar = tqdm(
        desc=f"Epoch {epoch}", total=total, initial=min(done, total), unit=" examples", leave=False,
        bar_format=FORMAT, dynamic_ncols=True, smoothing=0.1,
    )  # fmt: skip

    def advance(batches, loss=None):
        if loss is not None:
            bar.set_postfix_str(f"loss {loss:.4g}", refresh=False)
        bar.update(min(batches * loader.batch_size, total - bar.n))

    with bar, logging_redirect_tqdm([LOG]):
        yield advance
