"""Out of memory on a device: one message that says what to lower, and to what."""

import contextlib
import os
import re
import traceback

import jax

from utils import UserError

GIB = 2**30  # bytes
UNITS = {None: 1, "KiB": 2**10, "MiB": 2**20, "GiB": GIB, "TiB": 2**40}
USABLE = 0.9  # of what is free: allocators leave gaps
ASKED = re.compile(r"allocat\w*(?: of)? ([\d.]*\d) ?([KMGT]iB)?", re.IGNORECASE)
MORE_OF_A_GPU = (
    ". JAX takes three quarters of a GPU's memory: XLA_PYTHON_CLIENT_MEM_FRACTION=0.95 lets it "
    "take more; nvidia-smi shows what other programs hold"
)


@contextlib.contextmanager
def explain_out_of_memory(config, state=None):
    """Turns JAX's error of a device without memory into a UserError.

    Args:
        config: of the run.
        state: shapes of the TrainState, where it is what is being made.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if not re.search("RESOURCE_EXHAUSTED|out of memory", str(error), re.IGNORECASE):
            raise
        raise UserError(_describe(error, config, state)) from error


def _describe(error, config, state):
    """Returns the message: what did not fit, where, and what takes less."""
    device = jax.local_devices()[0]
    limit, free = _memory(device)
    found = ASKED.search(str(error))
    asked = float(found[1]) * UNITS[found[2]] if found else None
    factor = max(2, -int(-asked // (USABLE * free))) if asked and free else 2
    if state is not None:
        what, remedy = _of_state(state, limit)
    elif "evaluate" in {frame.name for frame in traceback.extract_tb(error.__traceback__)}:
        what, remedy = "an evaluation", _smaller_evaluation(config, factor)
    else:
        what, remedy = "an update", _smaller_update(config, factor)
    name = "the CPU" if device.platform == "cpu" else device.device_kind
    of = f" ({limit / GIB:.1f} GiB)" if limit else ""
    wanted = f" asked for {asked / GIB:.3g} GiB where {free / GIB:.3g} GiB were free"
    wanted = wanted if asked and free else " does not fit"
    more = MORE_OF_A_GPU if device.platform == "gpu" else ""
    return f"out of memory on {name}{of}: {what}{wanted}. {remedy}{more}"


def _memory(device):
    """The bytes that JAX may use on a device, and those of them that are free; None: unknown."""
    stats = device.memory_stats() or {}
    if "bytes_limit" in stats:
        return stats["bytes_limit"], max(stats["bytes_limit"] - stats["bytes_in_use"], 1)
    if device.platform == "cpu" and "SC_AVPHYS_PAGES" in os.sysconf_names:
        pages = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_AVPHYS_PAGES")
        return tuple(count * os.sysconf("SC_PAGE_SIZE") for count in pages)
    return None, None


def _of_state(state, limit):
    """What is said of a state that does not fit, and what takes less."""
    params, rest = _bytes(state.params), _bytes((state.optimizers, state.ema_params))
    total = params + rest
    times = f" at least {max(2, -int(-total // (USABLE * limit)))} times" if limit else ""
    what = f"the state ({params / GIB:.3g} GiB of parameters, {rest / GIB:.3g} of the optimizer)"
    return what, (
        f"Make the network{times} smaller (model.args), take an optimizer that keeps less (sgd "
        "without momentum nothing, adamw twice the parameters), or share the state among several "
        "devices (devices.shards)"
    )


def _smaller_update(config, factor):
    """Which settings make an update take a `factor`th of the memory."""
    batch, pieces = _batch_size(config.data_loader.train), config.training.accumulate
    half = ""
    if config.training.compute_dtype == "float32":
        half = "; training.compute_dtype=bfloat16 takes about half"
    if batch is None:
        return f"Lower the batch size of data_loader.train{half}"
    rows = batch // (config.devices.count or jax.device_count())  # of a device
    fitting = [n for n in range(pieces * factor, rows + 1) if rows % n == 0]
    if not fitting:
        return f"Make the network smaller (model.args): one example is too much{half}"
    return (
        f"Process the batch of {batch} in pieces (training.accumulate={fitting[0]}), or lower it "
        f"(data_loader.train.args.batch_size={max(batch // factor, pieces)}){half}"
    )


def _smaller_evaluation(config, factor):
    batch = _batch_size(config.data_loader.test)
    lower = f"={max(batch // factor, 1)}" if batch else ""
    return f"Lower its batch: data_loader.test.args.batch_size{lower}"


def _batch_size(loader):
    size = loader.args.get("batch_size") if isinstance(loader.args, dict) else None
    return size if isinstance(size, int) else None


def _bytes(tree):
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
