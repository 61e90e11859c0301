"""Several processes, started as examples/cluster and docs/many_devices.md say."""

import os
import re
import signal
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

import train
from examples.cluster import on_paper
from tests.helpers.process_groups import CLUSTER, block, slurm
from tests.helpers.project import ROOT
from training.distributed import processes
from utils import UserError

PAGE = ROOT / "docs" / "many_devices.md"


# ---- on one machine ----


def test_every_page_has_the_same_commands():
    assert block(PAGE, "wo terminals") == block(CLUSTER / "README.md", "wo terminals")


# ---- found by JAX ----


def test_options_and_variables_take_precedence_over_a_scheduler(monkeypatch):
    for name, value in slurm(1, 0, 8).items():
        monkeypatch.setenv(name, value)
    nothing = train.parse_arguments([])
    assert processes._managed()
    assert processes._place(nothing) is None
    words = ["--coordinator", "host:1234", "--processes", "4", "--process-id", "3"]
    assert processes._place(train.parse_arguments(words)) == ("host:1234", 4, 3)
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "host:1234")  # JAX finds the other two
    assert processes._place(nothing) is None
    monkeypatch.setenv("JAX_NUM_PROCESSES", "4")
    monkeypatch.setenv("JAX_PROCESS_ID", "2")
    assert processes._place(nothing) == ("host:1234", 4, 2)
    monkeypatch.delenv("JAX_NUM_PROCESSES")
    options = train.parse_arguments(["--coordinator", "host:1234"])
    with pytest.raises(UserError, match="--processes: missing"):
        processes._place(options)


# ---- examples/cluster ----


def test_the_slurm_script_requests_the_signal_and_a_requeue():
    text = (CLUSTER / "train.slurm").read_text()
    requested = dict(re.findall(r"^#SBATCH --([\w-]+)=?(\S*)$", text, re.MULTILINE))
    assert requested["signal"] == "TERM@60"
    assert "requeue" in requested
    assert requested["ntasks-per-node"] == requested["gpus-per-node"]
    assert "gpus-per-task" not in requested


@pytest.fixture(scope="module")
def manifest():
    """The objects of train.yaml by kind."""
    objects = list(yaml.safe_load_all((CLUSTER / "train.yaml").read_text()))
    assert len({one["kind"] for one in objects}) == len(objects)
    return {one["kind"]: one for one in objects}


def test_jax_finds_the_processes_of_the_kubernetes_job(manifest):
    job, service = manifest["Job"], manifest["Service"]
    spec, pod = job["spec"], job["spec"]["template"]["spec"]
    assert spec["completionMode"] == "Indexed"
    assert spec["completions"] == spec["parallelism"]  # JAX reads it as the number of processes
    assert job["metadata"]["labels"]  # JAX looks into them
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"] is True
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    assert pod["subdomain"] == service["metadata"]["name"]


def test_jax_derives_the_address_of_the_first_pod_from_the_job(manifest, monkeypatch):
    from jax._src.clusters.k8s_cluster import K8sCluster

    def answer(tree):
        """An object like those of the API's client: attributes, but labels as a dict."""
        if not isinstance(tree, dict):
            return tree
        return SimpleNamespace(
            **{name: one if name == "labels" else answer(one) for name, one in tree.items()}
        )

    job = manifest["Job"]
    monkeypatch.setattr(K8sCluster, "_job", lambda: answer(job))
    monkeypatch.setattr(K8sCluster, "_pod", lambda: answer(job["spec"]["template"]))
    monkeypatch.setattr(K8sCluster, "_controller", lambda: answer({"kind": "Job"}))
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "1")
    assert K8sCluster.get_coordinator_address(None, "1234") == "train-0.train:1234"
    assert (K8sCluster.get_process_count(), K8sCluster.get_process_id()) == (2, 1)


def test_the_pods_of_kubernetes_have_the_permissions_that_jax_needs(manifest):
    pod, account = manifest["Job"]["spec"]["template"]["spec"], manifest["ServiceAccount"]
    binding, role = manifest["RoleBinding"], manifest["Role"]
    assert pod["serviceAccountName"] == account["metadata"]["name"]
    assert [one["name"] for one in binding["subjects"]] == [account["metadata"]["name"]]
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    allowed = {
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert allowed == {("", "pods", "list"), ("batch", "jobs", "get")}


def test_kubernetes_restarts_a_lost_pod_but_not_a_failed_one(manifest):
    spec = manifest["Job"]["spec"]
    actions = {
        code: rule["action"]
        for rule in spec["podFailurePolicy"]["rules"]
        if "onExitCodes" in rule
        for code in rule["onExitCodes"]["values"]
    }
    stopped = 128 + signal.SIGTERM
    assert actions == {processes.LOST: "Ignore", stopped: "Ignore", 1: "FailJob"}
    assert spec["template"]["spec"]["restartPolicy"] == "Never"  # which such a policy asks for


@pytest.mark.parametrize("started", [False, True])
def test_a_pod_starts_a_run_or_resumes_it(tmp_path, manifest, started):
    (container,) = manifest["Job"]["spec"]["template"]["spec"]["containers"]
    if started:
        (tmp_path / "saved" / "title" / "date").mkdir(parents=True)
        (tmp_path / "saved" / "title" / "date" / "config.json").touch()
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "python").write_text('#!/bin/sh\necho "$@"\n')
    (tools / "python").chmod(0o755)
    done = subprocess.run(
        [*container["command"], *container["args"]],
        cwd=tmp_path, env=os.environ | {"PATH": f"{tools}:{os.environ['PATH']}"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    script, *words = done.stdout.split()
    assert script == "train.py"
    options = train.parse_arguments(words)
    assert options.resume == ("latest" if started else None)


# ---- on paper ----


def test_the_page_shows_what_the_script_prints(script):
    done = script(CLUSTER / "on_paper.py")
    assert done.returncode == 0, done.stderr
    assert f"$ python examples/cluster/on_paper.py\n{done.stdout}```" in PAGE.read_text()


@pytest.mark.parametrize("devices", [1, 2, 8, 64])
def test_a_ring_sends_what_the_page_says(devices):
    """Each device sends a part to its neighbour at every step: first to add, then to replace."""
    values = np.arange(devices * devices, dtype=float).reshape(devices, devices)  # of each device
    total, sent = values.sum(0), np.zeros(devices)
    for replace in (False, True):
        for step in range(devices - 1):
            parts = [(index - step + replace) % devices for index in range(devices)]
            messages = [values[index, parts[index]] for index in range(devices)]
            for index, (part, message) in enumerate(zip(parts, messages, strict=True)):
                neighbour = (index + 1) % devices
                values[neighbour, part] = message if replace else values[neighbour, part] + message
                sent[index] += 1
    np.testing.assert_allclose(values, np.tile(total, (devices, 1)))
    assert sent.tolist() == [on_paper.ring(devices, devices)] * devices
