"""Measures the time per epoch in other frameworks over that in this template.

    python benchmarks/peers.py --peers PYTHON [--rounds 5] [--networks sample lenet vit mlp]
    python benchmarks/peers.py --peers PYTHON --device cuda --dtypes float32 bfloat16

PYTHON is the interpreter of a virtual environment with the packages of requirements.txt, and flax,
keras and torch. Network, data, batch size, loss and optimizer are the same for all
(benchmarks/frameworks/); each trains as its own documentation advises, with as many threads. Every
program runs in its own process, and they train an epoch in turn, in every second round in the
reverse order; the first epoch, which compiles, is not counted. A ratio is of two epochs of the same
round, by the wall and, on a CPU, by the processors' time, which other programs disturb less. On an
accelerator all programs compile at the same time.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path

FRAMEWORKS = Path(__file__).resolve().parent / "frameworks"
NETWORKS = ("sample", "lenet", "vit", "mlp", "resnet18", "gpt")
TEMPLATE = "template"
PEERS = {
    "Flax NNX": ("of_flax.py",),
    "Keras on JAX": ("of_keras.py",),
    "PyTorch, DataLoader": ("of_torch.py", "dataloader"),
    "PyTorch, compiled": ("of_torch.py", "compiled"),
}


def main():
    """Prints a line of ratios for each network and dtype."""
    options = parse_arguments()
    cases = [(network, dtype) for network in options.networks for dtype in options.dtypes]
    cpu = options.device == "cpu"
    print(f"{processor(options.device)}; load average before {os.getloadavg()[0]:.1f}")
    heads = ["network", "dtype", "parameters", "template, s", *options.frameworks, "load"]
    print(f"\n| {' | '.join(heads)} |\n{'|---' * len(heads)}|", flush=True)
    for together in [[case] for case in cases] if cpu else [cases]:
        with ExitStack() as stack:
            started = {case: start(stack, *case, options) for case in together}
            programs = [one for each in started.values() for one in each.values()]
            for program in programs:  # the first epoch, which compiles
                program.request()
                if cpu:
                    program.answer()
            if not cpu:
                for program in programs:
                    first = program.answer()
                    print(f"{program.command}: {first}", file=sys.stderr, flush=True)
            for case, programs in started.items():
                compare(case, programs, options)


def parse_arguments():
    """Returns the command line's options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", required=True, metavar="PYTHON")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=NETWORKS[:4])
    parser.add_argument("--frameworks", nargs="+", choices=[*PEERS], default=[*PEERS])
    parser.add_argument("--device", choices=["cpu", "cuda", "tpu"], default="cpu")
    dtypes = ["float32", "bfloat16"]
    parser.add_argument("--dtypes", nargs="+", choices=dtypes, default=["float32"])
    parser.add_argument("--examples", type=int, help="of an epoch")
    return parser.parse_args()


def start(stack, network, dtype, options):
    """Returns {name: Program} of the programs that could be started; checks their networks."""
    commands = {TEMPLATE: [sys.executable, FRAMEWORKS / "of_template.py", network]}
    for name in options.frameworks:
        program, *way = PEERS[name]
        commands[name] = [options.peers, FRAMEWORKS / program, network, *way]
    common = ["--device", options.device, "--dtype", dtype]
    common += ["--examples", str(options.examples)] if options.examples else []
    settings = {"JAX_PLATFORMS": options.device, "KERAS_BACKEND": "jax"}
    settings |= {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}  # several programs share the device
    settings |= {"OMP_NUM_THREADS": str(len(os.sched_getaffinity(0)))}  # all, in all of them
    return {
        name: stack.enter_context(Program(os.environ | settings, *command, *common))
        for name, command in commands.items()
    }


def compare(case, programs, options):
    """Prints the line of a network: median ratios, and their ranges."""
    sizes = {p.parameters for p in programs.values() if p.parameters}
    if len(sizes) > 1:
        raise SystemExit(f"{case}: the networks are not the same: {sizes}")
    rounds, loads = {name: [] for name in programs}, []
    for number in range(options.rounds):
        for name in list(programs)[:: -1 if number % 2 else 1]:
            answer = programs[name].epoch()
            print(f"{case} {number} {name}: {answer}", file=sys.stderr, flush=True)
            rounds[name].append(answer)
        loads.append(os.getloadavg()[0])
    ours = rounds.pop(TEMPLATE)
    if None in ours:
        raise SystemExit(f"{case}: the template failed: {programs[TEMPLATE].error()}")
    cells = [cell(theirs, ours, options.device) for theirs in rounds.values()]
    seconds = statistics.median(one["seconds"] for one in ours)
    load = f"{min(loads):.1f} to {max(loads):.1f}"
    row = [*case, f"{min(sizes):,}", f"{seconds:.3g}", *cells, load]
    print(f"| {' | '.join(row)} |", flush=True)


def cell(theirs, ours, device):
    """Returns the ratios by the wall, and on a CPU those by its time, as text."""
    if None in theirs:
        return "-"
    kinds = [("seconds", "")] + [("cpu", "; CPU ")] * (device == "cpu")
    return "".join(
        word + ratios([t[kind] / o[kind] for t, o in zip(theirs, ours, strict=True)])
        for kind, word in kinds
    )


def ratios(pairs):
    """Returns the median and the range of the rounds' ratios, as text."""
    return f"{statistics.median(pairs):.2f} ({min(pairs):.2f} to {max(pairs):.2f})"


def processor(device):
    """Returns what computes, in words."""
    if device == "cuda":
        command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
        return subprocess.run(command, capture_output=True, text=True).stdout.strip()
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    name = next((one for one in lines if one.startswith("model name")), platform.machine())
    return f"{name.partition(':')[2].strip() or name}, {len(os.sched_getaffinity(0))} cores"


class Program:
    """One of the programs in frameworks/, which trains an epoch on request.

    One that fails (a framework that is not installed) answers None.
    """

    def __init__(self, environment, *command):
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self._log}
        self._process = subprocess.Popen(
            list(map(str, command)), env=environment, text=True, **pipes
        )
        self.parameters, self.command = None, " ".join(map(str, command[1:]))

    def request(self):
        """Asks for an epoch."""
        try:
            self._process.stdin.write("epoch\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return

    def answer(self):
        """Returns its next measurements, or None once it has failed."""
        if self.parameters is None:
            first = self._read()
            self.parameters = first and first["parameters"]
        return self._read()

    def epoch(self):
        """Requests an epoch, and returns its measurements."""
        self.request()
        return self.answer()

    def _read(self):
        line = self._process.stdout.readline()
        if not line:
            print(f"{self.command}: {self.error()}", file=sys.stderr, flush=True)
        return json.loads(line) if line else None

    def error(self):
        """Returns the end of what it printed."""
        self._log.seek(0)
        return self._log.read()[-600:].strip()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()


if __name__ == "__main__":
    main()
