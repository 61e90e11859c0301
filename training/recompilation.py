"""A warning where update or evaluate is compiled again, which takes as long as the first time."""

import logging
import re

import jax

JAX_LOGGER = "jax._src.interpreters.partial_eval"  # where JAX explains why it traces again
AGAIN = re.compile(r"  for (\w+) defined at .*training/(?:optimizers|copies|calls)\.py")
CHANGED = re.compile(r"\* at (.+), now (\S+) and before (\S+)")
LOG = logging.getLogger("main")


def warn_of_recompilation():
    """From now on each new compilation of update or evaluate is a warning that says what changed.

    To be called when an epoch is over: by then they have met every shape there is.
    """
    jax.config.update("jax_explain_cache_misses", True)
    logging.getLogger(JAX_LOGGER).addFilter(_say)


def _say(record):
    """Turns JAX's explanation into a warning of ours; what it has to say of others is dropped."""
    text = record.getMessage()
    if again := AGAIN.search(text):
        changes = [f"{what} is now {now}, it was {was}" for what, now, was in CHANGED.findall(text)]
        reason = "; ".join(changes) or text.splitlines()[-1].strip()
        LOG.warning("%s is compiled once more: %s", again[1], reason)
    return False
