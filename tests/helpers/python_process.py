"""Python in a process of its own, on as many devices of the CPU as wanted."""

import os
import subprocess
import sys

from tests.helpers.project import ROOT


def python(script, *arguments, devices=1):
    """Returns what a Python process prints; it must succeed."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_NUM_CPU_DEVICES": str(devices)}
    command = [sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=ROOT, timeout=250
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout
