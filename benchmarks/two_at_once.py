"""Two commands at once in one project, drawn at random with random delays: both end right.

python benchmarks/two_at_once.py --count 200 --seed 0

Each pair has a small project of its own with two trained runs and an export. Of each command is
expected what it gives alone, or a refusal in words; afterwards every checkpoint is read, every
run's metrics are compared with those of a run alone, byte for byte, and no temporary file or lock
is left. In one pair of six the first command is killed at a random moment. Commands are forked from
a process that has imported their libraries, so that a pair takes seconds.
"""

import argparse
import collections
import contextlib
import functools
import hashlib
import importlib
import importlib.util
import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
import types
from multiprocessing import forkserver
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from PIL import Image

from benchmarks.faults_common import ROOT, expect, write_digits
from training.checkpoint.naming import numbered
from training.checkpoint.reading import read
from training.common.files import PREVIOUS, UNFINISHED

FORK = multiprocessing.get_context("fork")
TIMEOUT = 300  # seconds for what takes a few
KILLED = 1 / 6  # share of the pairs whose first command is killed
RUN = "saved/Digits/first"
SWEEP = "saved/Digits-sweep/seed"
EXPORT = ["--into", "exports", "--limit", "float32.error=1e-3"]
COMMANDS = {  # {name: (file or module, arguments)}
    "train": ("train.py", ["-c", "config.json"]),
    "train again": ("train.py", ["-c", "config.json", "seed=1"]),
    "check": ("train.py", ["-c", "config.json", "--check"]),
    "resume": ("train.py", ["--resume", RUN, "training.epochs=3"]),
    "resume latest": ("train.py", ["--resume", "latest", "training.epochs=3"]),
    "test": ("test.py", ["-w", RUN, "--predictions"]),
    "test latest": ("test.py", ["-w", RUN, "--latest", "--predictions"]),
    "test array": ("test.py", ["-w", RUN, "--predictions", "predictions.npz"]),
    "export": ("inference/convert_tflite.py", ["-w", RUN, "--name", "new", *EXPORT]),
    "export again": (
        "inference/convert_tflite.py", ["-w", RUN, "--name", "digits", "--overwrite", *EXPORT],
    ),
    "predict": ("inference/predict.py", ["--name", "exports/digits", "pictures"]),
    "sweep": ("training.sweep", ["-c", "config.json", "seed=[0,1]", "training.epochs=1"]),
    "report": ("training.report", ["saved/Digits"]),
    "compare": ("training.report.compare", ["saved/Digits"]),
}  # fmt: skip
TRAINING = {"train": 1, "train again": 1, "resume": 1, "resume latest": 1, "sweep": 2}  # runs
OFTEN = ("train", "resume", "resume latest", "test", "test array", "sweep")  # drawn twice as often
IMPORTED = (
    "jax", "onnxruntime", "train", "training.engine.run", "training.debug.dry_run",
    "training.report.__main__", "training.report.predictions", "training.sweep.__main__",
    "inference.export.files", "inference.export.trained", "inference.predict",
)  # fmt: skip
REFUSED = re.compile(  # the refusals that are right, where another command is at work
    r"another process is training this run|another export of this name is being made"
    r"|exists; choose another --name|there is no such file|there is no checkpoint here"
    r"|no such export|one run; expected two|no config.json is here|No such file or directory"
)
STRAY = re.compile(rf"{UNFINISHED.pattern}|.*\.part|.*\{PREVIOUS}|.*\.lock|errors\.log|set-aside.*")


def main():
    """Prints how the pairs ended; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0, help="of the first pair; the next has +1")
    parser.add_argument("--only", nargs="+", choices=COMMANDS, default=list(COMMANDS))
    options = parser.parse_args()
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    prepare()
    counts, faults = collections.Counter(), 0
    with tempfile.TemporaryDirectory(prefix="two-") as folder:
        os.environ["XDG_CACHE_HOME"] = str(Path(folder, "cache"))
        project = make_project(Path(folder, "project"), Path(folder, "data"))
        alone = run_alone(project, Path(folder, "alone"), options.only)
        for seed in range(options.seed, options.seed + options.count):
            place = Path(folder, "pair")
            shutil.copytree(project, place)
            pair = draw(random.Random(seed), options.only, alone)
            try:
                counts.update(try_pair(place, pair, alone))
            except AssertionError as broken:
                faults += 1
                print(f"seed {seed}: {pair}: BROKEN: {broken}", flush=True)
            shutil.rmtree(place)
            if (seed + 1 - options.seed) % 10 == 0:
                print(f"{seed + 1 - options.seed} pairs, {faults} broken", flush=True)
    print(f"{options.count} pairs, {faults} broken; commands: {dict(sorted(counts.items()))}")
    return 1 if faults else 0


# Commands, forked ------------------------------------------------------------------------------


def prepare():
    """Imports what the commands need; none of it starts a thread."""
    multiprocessing.set_forkserver_preload(["tensorflow", "inference.export.converter"])
    forkserver.ensure_running()
    for name in IMPORTED:
        importlib.import_module(name)
    import inference.export.worker
    import training.sweep.execute

    # The process that converts is forked from one that has TensorFlow.
    inference.export.worker.get_context = lambda _: multiprocessing.get_context("forkserver")
    forkserver._forkserver.ensure_running = lambda: None
    training.sweep.execute.subprocess = types.SimpleNamespace(Popen=Forked, DEVNULL=None)


@functools.cache
def main_of(command):
    """The `main` of a file or module."""
    if not command.endswith(".py"):
        package = importlib.util.find_spec(command).submodule_search_locations
        return importlib.import_module(f"{command}.__main__" if package else command).main
    name = command.removesuffix(".py").replace("/", "_")
    spec = importlib.util.spec_from_file_location(name, ROOT / command)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def start(command, arguments, place, output):
    """Starts a command in a folder, its output in a file; returns the process."""
    process = FORK.Process(target=_run, args=(command, arguments, place, output))
    process.start()
    return process


def _run(command, arguments, place, output):
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.chdir(place)
    sys.exit(main_of(command)(arguments))


class Forked:
    """A run of a sweep as subprocess.Popen starts it, forked."""

    def __init__(self, command, stderr, **_):
        self.returncode, (_, script, *arguments) = None, command
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid:
            return
        code = 1
        try:
            os.setsid()
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.dup2(stderr.fileno(), 2)
            code = main_of(Path(script).name)(list(map(str, arguments)))
        finally:
            sys.stderr.flush()
            os._exit(code)

    def poll(self):
        """Returns the exit code, None while it runs."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def terminate(self):
        """Sends SIGTERM."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)


# The project, and what is expected -------------------------------------------------------------


def make_project(folder, data):
    """Makes a project with a config, pictures, two trained runs and an export."""
    folder.mkdir()
    write_digits(data)
    (folder / "pictures").mkdir()
    pixels = np.frombuffer((data / "t10k-images-idx3-ubyte").read_bytes()[16:], np.uint8)
    for index, digit in enumerate(pixels.reshape(-1, 28, 28)[:5]):
        Image.fromarray(digit).save(folder / "pictures" / f"{index}.png")
    values = json.loads((ROOT / "config.json").read_text())
    values |= {"title": "Digits", "model": {"name": "mlp", "args": {"feat_dims": [16]}}}
    for split in ("train", "test"):
        args = values["data_loader"][split]["args"]
        args["dataset"]["args"] = {"root": str(data), "split": split}
        args["batch_size"] = 64
    values["training"] |= {
        "epochs": 2, "save_every": "5 steps", "keep": 2, "log_every": "3 steps",
        "monitor": "max test_accuracy",
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(values))
    for name in ("second", "first"):
        finish("train", folder)
        (new,) = (one for one in (folder / "saved/Digits").iterdir() if one.name[0] == "2")
        new.rename(new.with_name(name))
        (folder / "saved/.latest").unlink()
    finish("export again", folder)
    return folder


def finish(name, place):
    """Runs a command alone, which must succeed; returns the seconds."""
    began, output = time.monotonic(), place.with_name("output")
    output.unlink(missing_ok=True)
    process = start(*COMMANDS[name], place, output)
    process.join(TIMEOUT)
    expect(process.exitcode == 0, f"{name} alone: {process.exitcode}: {output.read_text()[-3000:]}")
    return time.monotonic() - began


def run_alone(project, place, names):
    """Returns {name: seconds} of each command alone, and the results that are right."""
    found = {}
    for name in names:
        shutil.copytree(project, place)
        seconds = finish(name, place)
        found[name] = seconds, results(place)
        shutil.rmtree(place)
    # What test.py gives for each checkpoint that a resumed run may have.
    shutil.copytree(project, place)
    tested = {"predictions.csv": set(), "predictions.npz": set()}
    for name in (
        "test",
        "test latest",
        "test array",
        "resume",
        "test",
        "test latest",
        "test array",
    ):
        finish(name, place)
        for file, known in tested.items():
            if (place / RUN / file).exists():
                known.add(checksum(place / RUN / file))
    shutil.rmtree(place)
    shutil.copytree(project, place)
    finish("train again", place)
    finish("resume latest", place)
    found |= {"before": (0, results(project)), "new, resumed": (0, results(place))}
    shutil.rmtree(place)
    right = {as_text(one) for _, runs in found.values() for one in runs.values()}
    return {name: seconds for name, (seconds, _) in found.items()}, right, tested


def as_text(result):
    """A result of a run as a text, to be compared."""
    return json.dumps(result, sort_keys=True)


def results(place):
    """Returns {path: checksum} of what does not depend on the time: metrics and arrays."""
    found = {}
    for path in place.rglob("metrics.jsonl"):
        run = path.parent.relative_to(place)
        found[str(run)] = (
            checksum(path),
            *(
                {name: hashlib.sha256(one).hexdigest() for name, one in read(checkpoint)[0].items()}
                for checkpoint in numbered(path.parent)[-1:]
            ),
        )
    return found


def checksum(path):
    """The SHA-256 of a file; of .npz those of its arrays, as the archive has the time."""
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            return str({name: arrays[name].tobytes() for name in arrays})
    return hashlib.sha256(path.read_bytes()).hexdigest()


# Pairs -----------------------------------------------------------------------------------------


def draw(chance, names, alone):
    """Returns two commands, seconds between their starts, and until the first is killed."""
    names = [*names, *(name for name in OFTEN if name in names)]
    pair = chance.choice(names), chance.choice(names)
    seconds = alone[0][pair[0]]
    delay = chance.choice([0, chance.uniform(0, seconds)])
    kill = chance.uniform(0, seconds) if chance.random() < KILLED else None
    return *pair, round(delay, 3), kill and round(kill, 3)


def try_pair(place, pair, alone):
    """Runs a pair of commands and checks what they leave; returns how each of them ended."""
    *names, delay, kill = pair
    outputs = [place / f"output {index}" for index in (0, 1)]
    began, processes = time.monotonic(), []
    for name, output, wait in zip(names, outputs, (0, delay), strict=True):
        time.sleep(max(0, began + wait - time.monotonic()))
        processes.append(start(*COMMANDS[name], place, output))
    if kill is not None:
        processes[0].join(max(0, began + kill - time.monotonic()))
        processes[0].kill()
    ends = []
    for process in processes:  # both, whatever is wrong with the first
        process.join(TIMEOUT)
    for name, process, output in zip(names, processes, outputs, strict=True):
        killed = kill is not None and process.exitcode == -signal.SIGKILL
        text = output.read_text(errors="replace") if output.exists() else ""
        check_output(name, process.exitcode, text, killed)
        if process.exitcode == 1 and not killed:
            print(f"  {name}: {text.strip().splitlines()[-1][:200]}", flush=True)
        ends.append("killed" if killed else "done" if process.exitcode == 0 else "refused")
        output.unlink(missing_ok=True)
    if "killed" in ends:
        wait_for_orphans(place)
    check_files(place, names, alone, "killed" in ends)
    return [f"{name} {end}" for name, end in zip(names, ends, strict=True)]


def check_output(name, code, text, killed):
    """Checks how a command ended."""
    bad = re.search(r"Traceback|Logging error|Exception ignored|Error (reading|writing)", text)
    expect(not bad, f"{name}: {text[-2500:]}")
    if killed or code == 0:
        return
    expect(code == 1, f"{name}: exit code {code}: {text[-1500:]}")
    expect(REFUSED.search(text), f"{name}: {text[-1500:]}")


def wait_for_orphans(place):
    """Waits until the runs that a killed sweep was training have ended."""
    from data_loader.locked_files import open_locked

    for log in place.glob(f"{SWEEP}/*/train.log"):
        while (file := open_locked(log)) is None:
            time.sleep(0.05)
        file.close()


def check_files(place, names, alone, killed):
    """Checks everything in the project after a pair."""
    stray = [path for path in place.rglob("*") if STRAY.fullmatch(path.name)]
    expect(killed or not stray, f"left over: {[str(one.relative_to(place)) for one in stray]}")
    for path in place.rglob("checkpoint-*.params"):
        read(path)
    for path in [*place.rglob("*.html"), *place.rglob("*.json")]:
        text = path.read_text()
        whole = text.rstrip().endswith("</html>") if path.suffix == ".html" else json.loads(text)
        expect(whole, f"{path} is not complete")
    _, right, tested = alone
    wrong = [run for run, found in results(place).items() if as_text(found) not in right]
    unfinished = TRAINING.get(names[0], 0) if killed else 0
    expect(len(wrong) <= unfinished, f"{wrong}: other metrics or weights")
    if killed and names[0] in ("resume", "sweep"):
        finish(names[0], place)
        wrong = [run for run, found in results(place).items() if as_text(found) not in right]
        expect(not wrong, f"{wrong}: resumed: other metrics or weights")
    if not killed:
        expected = 2 + names.count("train") + names.count("train again")
        runs = list(place.glob("saved/Digits/*/config.json"))
        expect(len(runs) == expected, f"{len(runs)} runs, expected {expected}")
    for file, good in tested.items():
        for path in place.rglob(file):
            if path.parent != place:
                expect(checksum(path) in good, f"{path}: other predictions")


if __name__ == "__main__":
    sys.exit(main())
