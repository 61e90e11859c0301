"""Which device trains, named at the start of a run; a warning where a faster one is idle."""

import contextlib
import importlib.util
import logging
import os
from pathlib import Path
from typing import NamedTuple

import jax

LOG = logging.getLogger("main")


class Accelerator(NamedTuple):
    """A kind of device that JAX needs a package of its own for."""

    name: str
    platform: str  # JAX's word for it
    package: str  # what JAX needs to be installed, as Python imports it
    requirements: str  # the file that installs it


NVIDIA = Accelerator("An NVIDIA GPU", "cuda", "jax_cuda13_plugin", "requirements-cuda.txt")
TPU = Accelerator("A TPU", "tpu", "libtpu", "requirements-tpu.txt")
NVIDIA_FILES = ("dev/nvidia0", "dev/nvidiactl", "usr/lib/wsl/lib/nvidia-smi")  # WSL: Windows
TPU_VENDOR = "0x1ae0"  # on the PCI bus
TPU_DEVICES = ("0x0027", "0x0056", "0x005e", "0x0062", "0x0063", "0x006f", "0x0076")


def log_devices(wanted=None):
    """Logs the devices that train, and warns of an accelerator that JAX does not use.

    Args:
        wanted: how many devices the config asks for; None: all.
    """
    with _jax_warnings() as reasons:
        devices = jax.devices()
    count, kind = min(wanted or len(devices), len(devices)), devices[0].device_kind
    if devices[0].platform == "cpu":
        kind = f"the CPU ({os.cpu_count()} cores)" if count == 1 else "the CPU"
    LOG.info("Training on %s%s", f"{count} x " if count > 1 else "", kind)
    if warning := idle_warning(devices[0].platform, reasons):
        LOG.warning(warning)


def idle_warning(platform, reasons=(), root="/"):
    """Returns a warning of an accelerator that is there and not used, with the remedy; or None.

    Whoever has chosen the devices (JAX_PLATFORMS, CUDA_VISIBLE_DEVICES) is not warned.

    Args:
        platform: of the devices that JAX uses.
        reasons: what JAX itself says about devices that it cannot use.
        root: where the files are by which devices are found.
    """
    if platform != "cpu" or jax.config.jax_platforms:
        return None
    for accelerator in find_accelerators(Path(root)):
        if importlib.util.find_spec(accelerator.package) is None:
            return (
                f"{accelerator.name} is there, but this JAX is for the CPU alone. "
                f"To use it: pip install -r {accelerator.requirements}"
            )
        said = f" ({reasons[0].strip().rstrip('.')})" if reasons else ""
        return (
            f"{accelerator.name} is there, but JAX cannot use it{said}. What is wrong, says: "
            f'JAX_PLATFORMS={accelerator.platform} python -c "import jax; jax.devices()"'
        )
    return None


def find_accelerators(root):
    """Returns the Accelerators that this machine has, by the files of their drivers."""
    found = []
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    if not hidden and any((root / file).exists() for file in NVIDIA_FILES):
        found.append(NVIDIA)
    for vendor in root.glob("sys/bus/pci/devices/*/vendor"):
        with contextlib.suppress(OSError):
            device = vendor.with_name("device").read_text().strip()
            if vendor.read_text().strip() == TPU_VENDOR and device in TPU_DEVICES:
                return [*found, TPU]
    return found


@contextlib.contextmanager
def _jax_warnings():
    """Takes what JAX warns of while it looks for devices, to be said in one warning."""
    said, logger = [], logging.getLogger("jax._src.xla_bridge")

    def take(record):
        if record.levelno == logging.WARNING:
            said.append(record.getMessage())
        return record.levelno != logging.WARNING

    logger.addFilter(take)
    try:
        yield said
    finally:
        logger.removeFilter(take)
