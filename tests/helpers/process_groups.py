"""What the tests of several processes share: commands of pages, variables, what is printed."""

import re
import shlex

from benchmarks import scale
from tests.helpers.project import ROOT

CLUSTER = ROOT / "examples" / "cluster"


def block(path, heading):
    """The words and variables of the commands in the first block under a heading."""
    section = path.read_text(encoding="utf-8").partition(heading)[2]
    text = re.search(r"^```\w*\n(.*?)^```", section, re.DOTALL | re.MULTILINE)[1]
    commands = []
    for line in re.sub(r"\s+#.*", "", text, flags=re.MULTILINE).strip().splitlines():
        words, variables = shlex.split(line), {}
        while "=" in words[0]:
            name, _, variables[name] = words.pop(0).partition("=")
        commands.append((words, variables))
    return commands


def slurm(job, index, count=2):
    """The variables that srun sets in a process of a job on this machine."""
    return {
        "SLURM_JOB_ID": str(job), "SLURM_STEP_NODELIST": "localhost", "SLURM_STEP_NUM_NODES": "1",
        "SLURM_NTASKS": str(count), "SLURM_PROCID": str(index), "SLURM_LOCALID": str(index),
    }  # fmt: skip


def outputs_of(group, started, expected_codes):
    """Waits for processes, which must end with these exit codes; returns what they printed."""
    codes = [process.wait(scale.PATIENCE) for process in started]
    texts = [group.said(index) for index in range(len(started))]
    assert codes == expected_codes, texts
    assert not any("Traceback" in text for text in texts)
    return texts
