"""Measures the time per epoch in other frameworks over that in this template.

    python benchmarks/peers.py --peers PYTHON [--rounds 5] [--networks sample lenet vit mlp]

PYTHON is the interpreter of a virtual environment with the packages of requirements.txt, and flax,
keras and torch. Network, data, batch size, loss and optimizer are the same for all
(benchmarks/frameworks/); each trains as in its own documentation. Every program runs in its own
process, and they train an epoch in turn; the first is not counted. A ratio is of two epochs of the
same round.
"""

import argparse
import json
import statistics
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

FRAMEWORKS = Path(__file__).resolve().parent / "frameworks"
PEERS = {
    "Flax NNX": ("of_flax.py",),
    "Keras on JAX": ("of_keras.py",),
    "PyTorch, DataLoader": ("of_torch.py", "dataloader"),
    "PyTorch, by hand": ("of_torch.py", "byhand"),
}


def main():
    """Prints a line of ratios for each network."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", required=True, metavar="PYTHON")
    parser.add_argument("--rounds", type=int, default=5)
    networks = ["sample", "lenet", "vit", "mlp"]
    parser.add_argument("--networks", nargs="+", choices=networks, default=networks)
    options = parser.parse_args()
    print("| network | parameters | template, s |", " | ".join(PEERS), "|")
    print("|---|---|---|" + "---|" * len(PEERS))
    for network in options.networks:
        compare(network, options)


def compare(network, options):
    """Prints the line of a network: median ratios, and their ranges."""
    commands = {"template": [sys.executable, FRAMEWORKS / "of_template.py", network]}
    for name, (program, *way) in PEERS.items():
        commands[name] = [options.peers, FRAMEWORKS / program, network, *way]
    times = {name: [] for name in commands}
    with ExitStack() as stack:
        programs = {name: stack.enter_context(Program(*commands[name])) for name in commands}
        parameters = {name: program.answer()["parameters"] for name, program in programs.items()}
        if len(set(parameters.values())) > 1:
            raise SystemExit(f"{network}: the networks are not the same: {parameters}")
        for number in range(options.rounds + 1):
            for name, program in programs.items():
                answer = program.epoch()
                print(f"{network} {number} {name}: {answer}", file=sys.stderr, flush=True)
                if number > 0:
                    times[name].append(answer["seconds"])
    ours = times.pop("template")
    shown = [ratios(theirs, ours) for theirs in times.values()]
    size, seconds = parameters["template"], statistics.median(ours)
    print(f"| {network} | {size} | {seconds:.2f} |", " | ".join(shown), "|", flush=True)


def ratios(theirs, ours):
    """Returns the median and the range of the rounds' ratios, as text."""
    pairs = [their / our for their, our in zip(theirs, ours, strict=True)]
    return f"{statistics.median(pairs):.2f} ({min(pairs):.2f} to {max(pairs):.2f})"


class Program:
    """One of the programs in frameworks/, which trains an epoch on request."""

    def __init__(self, *command):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self._command, self._process = command, subprocess.Popen(command, text=True, **pipes)

    def answer(self):
        """Returns its next line of output, as a dict."""
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{' '.join(map(str, self._command))} ended early")
        return json.loads(line)

    def epoch(self):
        """Requests an epoch, and returns its measurements."""
        self._process.stdin.write("epoch\n")
        self._process.stdin.flush()
        return self.answer()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self._process.stdin.close()
        self._process.wait()


if __name__ == "__main__":
    main()
