"""Every network's update is lowered for NVIDIA GPUs and TPUs, on a machine that has neither."""

import jax
import pytest

from model.modules import operators
from tests.helpers.project import ROOT
from training.config import read_config
from training.engine.build import build
from training.engine.initialize import dry_run, first_batch

FRAMEWORKS = "benchmarks.frameworks.of_template:"
CASES = {
    "sample": [],
    "sample in bfloat16": ["training.compute_dtype=bfloat16"],
    "several steps": ["training.steps_per_call=4"],
    "several seeds": ["training.seeds=2"],
    "vit": ["model=vit"],
    "mlp": ["model=mlp"],
    "lenet": [f"model={FRAMEWORKS}lenet"],
    "resnet18": [f"model={FRAMEWORKS}resnet18"],
    "text": ["examples/text/config.json"],
    "gan": ["examples/gan/config.json"],
    "tabular": ["examples/tabular/config.json"],
}


@pytest.mark.parametrize("case", CASES)
def test_an_update_is_lowered_for_gpus_and_tpus(case, monkeypatch):
    monkeypatch.chdir(ROOT)
    config, overrides = "config.json", CASES[case]
    if overrides and overrides[0].endswith(".json"):
        config, *overrides = overrides
    experiment = build(read_config(config, overrides))
    batch = first_batch(experiment)
    state, (call, _) = dry_run(experiment, batch), next(experiment.batches(epoch=1))
    # Without the compiler options, which are those of a CPU.
    update = jax.jit(experiment.update.__wrapped__)
    exported = jax.export.export(update, platforms=["cuda", "tpu"])(state, call)
    assert exported.platforms == ("cuda", "tpu")


def convolutions(platform, size, kernel):
    """How many of XLA's convolutions a depthwise convolution and its gradients are lowered to."""
    x = jax.ShapeDtypeStruct((2, size, size, 8), "float32")
    weights = jax.ShapeDtypeStruct((kernel, kernel, 1, 8), "float32")
    pads = ((kernel // 2, kernel // 2),) * 2

    def loss(x, weights):
        return operators.convolve(x, weights, (1, 1), pads, 8).sum()

    exported = jax.export.export(jax.jit(jax.grad(loss, (0, 1))), platforms=[platform])
    return exported(x, weights).mlir_module().count("stablehlo.convolution")


def test_the_depthwise_form_depends_on_the_device():
    assert convolutions("cpu", 7, 7) == 0
    assert convolutions("cuda", 7, 7) == 0
    assert convolutions("cuda", 16, 3) == 0
    assert convolutions("cpu", 16, 3) == 0
    assert convolutions("cuda", 28, 3) > 0
    assert convolutions("cpu", 28, 3) == 0
    assert convolutions("tpu", 7, 7) > 0
