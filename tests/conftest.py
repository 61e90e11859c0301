"""What the tests share: which of them run, a small piece of the real MNIST, a config for it.

`python -m pytest` runs the fast set: all tests but those below a folder named `full`.
`python -m pytest --full` (or `-m ""`) runs all. A test named on the command line runs in any case.
"""

import ctypes
import gc
import gzip
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import numpy as np
import pytest
from absl import logging as absl_logging
from hypothesis import HealthCheck, settings

import train
from tests.helpers.project import BATCH_SIZE, ROOT, TEST_EXAMPLES, TRAIN_EXAMPLES, write_mnist
from training.engine.compilation import use_compilation_cache

# logging.config closes the handlers of others, and absl's (which optax brings) would then close the
# stream in which pytest captures stderr, as it is another one than during the test.
absl_logging.get_absl_handler().python_handler.stream = sys.__stderr__


LARGEST_CACHE = 2**30  # bytes of compiled functions, above which the next session begins anew
LARGEST_PROCESS = 3 * 2**29  # bytes

# The first example of a test may compile, so no example has a deadline.
COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("fast", max_examples=10, derandomize=True, database=None, **COMMON)
# As hypothesis itself does it: CI tries the same examples every time, everyone else new ones.
settings.register_profile(
    "full", max_examples=100, derandomize="CI" in os.environ, print_blob=True, **COMMON
)

# A shell has what it starts in the background ignore Ctrl-C, and that would be inherited.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

NO_TENSORFLOW = importlib.util.find_spec("tensorflow") is None  # as on Python 3.14
ITS_ABSENCE = re.compile(r"an export needs T|not installed: .*tensorflow|No module named 'tensorf")


WANTING_IT = []  # exceptions; one of a fixture is raised in each test that uses it


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Skips a test that fails for want of TensorFlow, which not every Python has a wheel of."""
    report = yield
    if not (NO_TENSORFLOW and report.failed):
        return report
    said = report.longreprtext + report.capstdout + report.capstderr
    known = any(call.excinfo.value is one for one in WANTING_IT)
    if known or ITS_ABSENCE.search(said):
        WANTING_IT.append(call.excinfo.value)
        report.outcome = "skipped"
        report.longrepr = (str(item.path), item.location[1] or 0, "Skipped: needs TensorFlow")
    return report


def pytest_addoption(parser):
    parser.addoption("--full", action="store_true", help="Run all tests, not the fast set only.")


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config):
    """Chooses the set of tests and, where none is named, shares them among processes."""
    option = config.option
    here = config.invocation_params.dir
    named = [
        _below_tests((here / name.partition("::")[0]).resolve()) for name in option.file_or_dir
    ]
    marked = any(argument.startswith("-m") for argument in config.invocation_params.args)
    if not (option.full or marked or any("full" in parts for parts in named)):
        option.markexpr = "not full"
    if hasattr(config, "workerinput"):  # one of the processes of pytest-xdist
        return
    if not named and getattr(option, "numprocesses", 0) is None:
        option.numprocesses = "auto"
    if getattr(option, "dist", None) == "no":
        option.dist = "worksteal"  # neighbours stay together, as they share fixtures


def pytest_configure(config):
    """Sets how many examples hypothesis tries, and where compiled functions are kept.

    They are kept for the other tests and for the next session, as `train.py` keeps them for the
    next run, in a folder that `--cache-clear` empties.
    """
    config.addinivalue_line("markers", "full: not in the fast set; for tests in a folder `full`")
    settings.load_profile("fast" if config.option.markexpr == "not full" else "full")
    if hasattr(config, "cache") and not hasattr(config, "workerinput"):
        folder = config.cache.mkdir("compiled")
        if sum(path.stat().st_size for path in folder.rglob("*")) > LARGEST_CACHE:
            shutil.rmtree(folder, ignore_errors=True)
        os.environ["XDG_CACHE_HOME"] = str(folder)
    use_compilation_cache()


@pytest.fixture(scope="module", autouse=True)
def bounded_memory():
    """Forgets what JAX has compiled once a process that tests has grown large."""
    yield
    if sys.platform == "linux" and _resident_memory() > LARGEST_PROCESS:
        jax.clear_caches()
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)


def _resident_memory():
    """Returns the bytes of memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def pytest_ignore_collect(collection_path, config):
    """Does not import what is not run."""
    left_out = config.option.markexpr == "not full" and "full" in _below_tests(collection_path)
    return left_out or None  # None: others decide


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Marks the tests below a folder named `full`."""
    for item in items:
        if "full" in _below_tests(item.path):
            item.add_marker("full")


def _below_tests(path):
    tests = ROOT / "tests"
    return path.relative_to(tests).parts if path.is_relative_to(tests) else ()


@pytest.fixture(autouse=True)
def own_imports(monkeypatch):
    """A run whose code a test has imported is found by no other test."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path])


@pytest.fixture(scope="session")
def mnist(tmp_path_factory):
    """A folder with the first examples of the real MNIST."""
    folder = tmp_path_factory.mktemp("mnist")
    write_mnist(folder, TRAIN_EXAMPLES, TEST_EXAMPLES)
    return folder


@pytest.fixture(scope="session")
def digits():
    """Predictions of real digits: how near they are to the classes' mean pictures."""
    from training.engine.evaluation import Predictions

    def read(name, header):
        return np.frombuffer(gzip.open(ROOT / "data" / name).read(), np.uint8, offset=header)

    images = read("t10k-images-idx3-ubyte.gz", 16).reshape(-1, 1, 28, 28)
    targets = read("t10k-labels-idx1-ubyte.gz", 8).astype(np.int64)
    pixels = images.reshape(-1, 784) / 255.0
    means = np.stack([pixels[targets == label].mean(0) for label in range(10)])
    logits = 2 * pixels @ means.T - (means**2).sum(1)
    return Predictions(logits.astype(np.float32), targets, images)


@pytest.fixture(scope="session")
def config_of(mnist):
    """Returns the sample's config as a dict, on the small data, with a small network.

    Its argument is the folder that holds the runs.
    """
    return lambda folder: small_config(mnist, folder)


@pytest.fixture
def config(config_of, tmp_path):
    """The config of `config_of` as a dict of the test's own."""
    return config_of(tmp_path)


def small_config(mnist, folder):
    """The sample's config on the images in `mnist`, its runs in `folder`/saved."""
    values = json.loads((ROOT / "config.json").read_text())
    values["model"] = {"name": "mlp", "args": {"feat_dims": [16]}}
    for split in ("train", "test"):
        args = values["data_loader"][split]["args"]
        args["dataset"]["args"] = {"root": str(mnist), "split": split}
        args["batch_size"] = BATCH_SIZE
    values["training"] |= {
        "epochs": 2, "save_every": "1 epoch", "log_every": "3 steps",
        "save_dir": str(folder / "saved"), "monitor": "max epoch_train_accuracy",
    }  # fmt: skip
    return values


@pytest.fixture
def write_config(tmp_path):
    """Writes a config's dict to a file and returns its path."""

    def write(values, name="config.json"):
        path = tmp_path / name
        path.write_text(json.dumps(values))
        return str(path)

    return write


@pytest.fixture
def run(config, write_config, monkeypatch):
    """Runs train.py in this process; returns the exit code and the newest run folder."""
    monkeypatch.chdir(ROOT)

    def run(*arguments):
        if "--resume" not in arguments:
            arguments = ("-c", write_config(config), *arguments)
        code = train.main(list(arguments))
        runs = sorted(Path(config["training"]["save_dir"]).glob("*/*"), key=os.path.getmtime)
        return code, (runs[-1] if runs else None)

    return run


@pytest.fixture
def script():
    """Runs one of the project's scripts as its own process, and returns what it did."""

    def script(*arguments, cwd=ROOT, **named):
        command = [sys.executable, *map(str, arguments)]
        return subprocess.run(
            command, cwd=cwd, capture_output=True, text=True, timeout=300, **named
        )

    return script
