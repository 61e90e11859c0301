"""`python train.py --check`: builds everything, tries a batch of each split, leaves no file."""

from training.checkpoint.naming import find_run
from training.common import kept_code
from training.config import read_config


def check(source, overrides=(), resume=None, trust=False, own_code=False, allow=()):
    """Prints the layers and the results of a batch of each split; returns the exit code.

    The arguments are those of `train.fit`.
    """
    folder, checkpoint = find_run(resume) if resume else (None, None)
    source = kept_code.use_code_of(folder, trust, own_code) or source
    config = read_config(source, overrides, allow)
    # The config is checked before JAX is imported, which takes a second.
    from training.debug.try_out import try_out
    from training.engine.out_of_memory import explain_out_of_memory

    with explain_out_of_memory(config):
        return try_out(config, source, folder, checkpoint)
