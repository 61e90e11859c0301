"""A run names its device, and warns of one that is there and idle."""

import logging

import jax
import pytest

from training.distributed.devices import _jax_warnings, find_accelerators, idle_warning


@pytest.fixture
def not_chosen(monkeypatch):
    """As if the user had not chosen the devices; the tests choose the CPU."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    before = jax.config.jax_platforms
    jax.config.update("jax_platforms", None)
    yield
    jax.config.update("jax_platforms", before)


@pytest.fixture
def machine(tmp_path):
    """Makes the files by which devices are found, {path: content}; returns their root."""

    def machine(**files):
        for path, content in files.items():
            file = tmp_path / path.replace("__", "/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content)
        return tmp_path

    return machine


def pci(number, vendor, device):
    folder = f"sys__bus__pci__devices__{number}"
    return {f"{folder}__vendor": f"{vendor}\n", f"{folder}__device": f"{device}\n"}


@pytest.mark.usefixtures("not_chosen")
def test_an_idle_nvidia_gpu_is_one_warning_with_the_line_to_type(machine):
    said = idle_warning("cpu", root=machine(dev__nvidia0=""))
    assert said.endswith("To use it: pip install -r requirements-cuda.txt")
    assert said.startswith("An NVIDIA GPU is there")


@pytest.mark.usefixtures("not_chosen")
def test_an_idle_tpu_is_one_warning_with_the_line_to_type(machine):
    root = machine(**pci("0", "0x1ae0", "0x0062"))
    assert "pip install -r requirements-tpu.txt" in idle_warning("cpu", root=root)


@pytest.mark.parametrize("other", [("0x1ae0", "0x0042"), ("0x8086", "0x0062")])
def test_other_devices_on_the_bus_are_no_tpu(other, machine):
    assert find_accelerators(machine(**pci("0", *other))) == []


def test_nobody_is_warned_who_uses_it_or_has_chosen(not_chosen, machine, monkeypatch):
    root = machine(dev__nvidia0="")
    assert idle_warning("cpu", root=root)
    assert idle_warning("gpu", root=root) is None
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert idle_warning("cpu", root=root) is None
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    jax.config.update("jax_platforms", "cpu")
    assert idle_warning("cpu", root=root) is None


@pytest.mark.usefixtures("not_chosen")
def test_an_installed_package_that_fails_is_told_with_jaxs_reason(machine, monkeypatch):
    root = machine(dev__nvidiactl="")
    (root / "jax_cuda13_plugin.py").write_text("")
    monkeypatch.syspath_prepend(root)
    reasons = ["CUDA backend failed to initialize: the driver is too old."]
    said = idle_warning("cpu", reasons, root)
    assert "the driver is too old)" in said
    assert "JAX_PLATFORMS=cuda python -c" in said
    assert "pip install" not in said


def test_what_jax_says_of_devices_is_not_said_twice(caplog):
    logger = logging.getLogger("jax._src.xla_bridge")
    with _jax_warnings() as reasons:
        logger.warning("An NVIDIA GPU may be present on this machine")
    assert reasons == ["An NVIDIA GPU may be present on this machine"]
    logger.warning("later")
    assert [record.getMessage() for record in caplog.records] == ["later"]
