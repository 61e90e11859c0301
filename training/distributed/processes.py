"""Several processes that train together, on one machine or on many, by JAX's distributed runtime.

Every process runs the same command on the same config and data; each reads its rows of a batch, and
only the first one logs, tracks and writes. Under SLURM, Open MPI 4, Kubernetes (indexed jobs) and
on TPU pods JAX finds the other processes by itself. Elsewhere they are given by options or by the
variables JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID, which take precedence.
"""

import ctypes
import importlib.util
import json
import logging
import os
import signal
import sys
import time
import traceback

from utils import UserError

GRACE = 0.5  # seconds for the others to print their own error before the first one ends them
LOST = 75  # exit code if another process was lost: EX_TEMPFAIL of sysexits.h, start again
VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
LOG = logging.getLogger("main")

_distributed = False  # whether this process is one of several
_abort_message = ""  # printed if the runtime aborts


def add_options(parser):
    """Adds the command line's options for one of several processes."""
    group = parser.add_argument_group("several processes, if JAX does not find them by itself")
    group.add_argument("--coordinator", metavar="HOST:PORT", help="address of process 0")
    group.add_argument("--processes", type=int, metavar="N", help="number of processes")
    group.add_argument("--process-id", type=int, metavar="I", help="number of this process, from 0")
    group.add_argument(
        "--wait", type=int, default=30, metavar="SECONDS", help="to wait for the others (30)"
    )
    group.add_argument(
        "--heartbeat", type=int, default=30, metavar="SECONDS",
        help="without a sign of life after which a process is lost (30)",
    )  # fmt: skip


def initialize(options):
    """Connects to the other processes, if any; called before JAX computes anything.

    If not all processes connect in time, this one ends.

    Raises:
        UserError: the options, those of `add_options`, do not fit together.
    """
    global _distributed
    place = _place(options)
    if place is None and not _managed():
        return
    import jax

    coordinator, count, index = place or (None, None, None)
    who = "this process" if index is None else f"process {index} of {count}"
    _print_when_aborted(
        f"{who}: the others did not connect within {options.wait} seconds"
        + (f" to {coordinator}. Start each of the {count} with the same --coordinator and "
           f"--processes, and --process-id 0 to {count - 1}, each once" if place else "")
    )  # fmt: skip
    try:
        jax.distributed.initialize(
            coordinator, count, index,
            cluster_detection_method="deactivate" if place else None,
            initialization_timeout=max(1, options.wait // 2),  # JAX waits twice as long
            heartbeat_timeout_seconds=options.heartbeat,
        )  # fmt: skip
    except (RuntimeError, ValueError) as error:
        if place is None and "should be defined" in str(error):
            return  # it only looked like a cluster
        raise UserError(f"{who}: cannot join the others: {error}") from None
    _distributed = jax.process_count() > 1
    _print_when_aborted(
        f"process {jax.process_index()} of {jax.process_count()}: another process was lost; see "
        "its output. Start all of them again, with --resume latest"
    )
    # This also opens the connections: from now on a lost process is noticed at once.
    assert_same(processes=count, resume=options.resume)


def is_distributed():
    """Whether this process is one of several."""
    return _distributed


def is_main():
    """Whether this is the first process, which logs, tracks and writes."""
    if not _distributed:
        return True
    import jax

    return jax.process_index() == 0


def broadcast(text):
    """Returns the first process's text in all processes."""
    return _all_texts(text)[0] if _distributed else text


def assert_same(**values):
    """Raises a UserError in every process where the values, which JSON can hold, differ."""
    if not _distributed:
        return
    from training.common.records import changes

    gathered = [json.loads(text) for text in _all_texts(json.dumps(values))]
    for index, other in enumerate(gathered):
        lines = changes(gathered[0], other, "process 0 has {}, it has {}")
        if lines:
            raise UserError(
                f"process {index} would train something else than process 0; give all of them the "
                "same command, config and data:\n  " + "\n  ".join(lines)
            )


def any_process(flag):
    """Whether the flag is set in any process."""
    return "1" in _all_texts("1" if flag else "0") if _distributed else bool(flag)


def report_failure(error):
    """Prints an error that nothing has caught; returns the exit code."""
    import jax

    if isinstance(error, jax.errors.JaxRuntimeError) or "Gloo" in str(error):
        print(f"{type(error).__name__}: {str(error).splitlines()[0]}", file=sys.stderr)
        return LOST
    traceback.print_exception(error)
    return 1


def shutdown():
    """Waits until the other processes have finished too, and disconnects."""
    global _distributed
    if _distributed:
        import jax

        jax.distributed.shutdown()
        _distributed = False


def exit_process(code):
    """Ends the process; after an error without waiting for the others, which may wait for it."""
    if not _distributed:
        sys.exit(code)
    if code == LOST:
        print(f"error: {_abort_message}", file=sys.stderr)
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    if is_main() and code != LOST:
        time.sleep(GRACE)
    os._exit(code)


def _place(options):
    """Returns (coordinator, processes, process id) as options or variables give them, or None."""
    given = (options.coordinator, options.processes, options.process_id)
    names = ("--coordinator", "--processes", "--process-id")
    found = [
        os.environ.get(variable) if option is None else option
        for option, variable in zip(given, VARIABLES, strict=True)
    ]
    if all(value is None for value in found):
        return None
    if None in found and _managed() and all(option is None for option in given):
        return None  # JAX finds what the variables do not give
    for value, name, variable in zip(found, names, VARIABLES, strict=True):
        if value is None:
            raise UserError(f"{name}: missing (or {variable}); the three belong together")
    coordinator, *numbers = found
    try:
        count, index = map(int, numbers)
    except ValueError:
        raise UserError(f"{VARIABLES[1:]}: expected whole numbers, got {numbers}") from None
    if not coordinator.rpartition(":")[2].isdigit() or not coordinator.rpartition(":")[0]:
        raise UserError(f"--coordinator: expected HOST:PORT, got {coordinator!r}")
    if not 0 <= index < count:
        raise UserError(f"--process-id: expected 0 to {count - 1}, got {index}")
    return coordinator, count, index


def _managed():
    """Whether several processes were started by something that JAX knows."""
    return (
        ("SLURM_PROCID" in os.environ and os.environ.get("SLURM_NTASKS") != "1")
        or "OMPI_MCA_orte_hnp_uri" in os.environ
        or {"KUBERNETES_SERVICE_HOST", "JOB_COMPLETION_INDEX"} <= os.environ.keys()
        or importlib.util.find_spec("libtpu") is not None
    )


def _all_texts(text):
    """Returns the text of every process, in their order."""
    import numpy as np
    from jax.experimental.multihost_utils import process_allgather

    content = text.encode()
    lengths = process_allgather(np.array(len(content)))
    row = np.zeros(max(lengths), np.uint8)
    row[: len(content)] = np.frombuffer(content, np.uint8)
    rows = process_allgather(row)
    return [bytes(row[:length]).decode() for row, length in zip(rows, lengths, strict=True)]


def _print_when_aborted(message):
    """Prints this message if JAX's runtime ends the process, which it does by abort()."""
    global _abort_message
    _abort_message = message
    ctypes.CDLL(None).signal(signal.SIGABRT, _on_abort)


@ctypes.CFUNCTYPE(None, ctypes.c_int)
def _on_abort(_number):
    print(f"error: {_abort_message}", file=sys.stderr, flush=True)
    os._exit(LOST)
