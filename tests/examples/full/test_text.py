"""The example in examples/text: a character-level language model."""

import json
import math
import signal
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import train
from data_loader.sources import tokenize
from examples.text import sample
from examples.text.characters import CODES, Text, perplexity, writer
from examples.text.generate import choose, generate
from inference import convert_tflite
from inference.verify.runtimes import load
from tests.helpers.examples import CONTEXT, TEXT, text_config
from tests.helpers.project import ROOT, same_arrays
from training.checkpoint.naming import find
from training.checkpoint.reading import read
from training.checkpoint.restore import network_params
from utils import UserError

GOSPELS = ROOT / "examples" / "text" / "gospels.txt"


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """A file with the first characters of the example's text."""
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(GOSPELS.read_text()[:3000])
    return path


@pytest.fixture
def config(text, tmp_path):
    return text_config(text, tmp_path / "saved")


@pytest.fixture(scope="module")
def finished_run(text, tmp_path_factory):
    """The folder of a run of two epochs."""
    folder = tmp_path_factory.mktemp("run")
    path = folder / "config.json"
    path.write_text(json.dumps(text_config(text, folder / "saved")))
    assert train.main(["-c", str(path)]) == 0
    return next((folder / "saved").glob("*/*"))


@pytest.fixture
def run_own_sample(monkeypatch, capsys):
    """Runs sample.py in this process; returns its exit code and what it wrote."""

    def run(*arguments):
        capsys.readouterr()
        return sample.main([str(argument) for argument in arguments]), capsys.readouterr()

    return run


@pytest.mark.parametrize(("context", "stride"), [(16, 16), (16, 8), (16, 1), (7, 3), (299, 5)])
def test_every_character_but_the_first_counts_once(text, context, stride):
    dataset = Text(text, "test", context, stride)
    counted = np.zeros(len(dataset.codes))
    for index in range(len(dataset)):
        inputs, targets, weight = dataset[index]
        assert inputs.shape == targets.shape == weight.shape == (context,)
        for at in np.flatnonzero(weight):
            position = index * stride + at
            assert (inputs[at], targets[at]) == tuple(dataset.codes[position : position + 2])
            counted[position + 1] += weight[at]
    assert counted[0] == 0
    assert np.all(counted[1:] == 1)


def test_the_splits_are_the_beginning_and_the_end_of_the_text(text):
    codes = [Text(text, split, CONTEXT, CONTEXT).codes for split in ("train", "test")]
    assert bytes(np.concatenate(codes).astype(np.uint8)) == text.read_bytes()
    assert len(codes[1]) == 300


def test_no_position_depends_on_later_ones():
    """Checks the gradient of each output by the embedding table, one row per position."""
    length = 6
    codes = jnp.arange(length)[None]
    _, params = writer(codes, **TEXT, key=jax.random.key(0))

    def outputs(table):
        given = params | {"characters": {"table": table}}
        return writer(codes, **TEXT, params=given)[0][0].sum(-1)

    table = params["characters"]["table"]
    depends = np.abs(jax.jacobian(outputs)(table)).sum(-1)[:, :length] > 0
    assert np.array_equal(depends, np.tril(np.ones((length, length), bool)))


def test_perplexity_is_the_number_of_equally_likely_characters():
    codes = jnp.zeros((2, 3), jnp.int32)
    logits = jnp.where(jnp.arange(CODES) < 5, 0.0, -1e9) * jnp.ones((2, 3, 1))
    values = perplexity(logits, codes)
    assert perplexity.compute(float(values.sum()), 6.0) == pytest.approx(5)


def test_the_metrics_of_a_run_count_every_character_once(finished_run, text):
    lines = map(json.loads, (finished_run / "metrics.jsonl").read_text().splitlines())
    first, last = (line for line in lines if "test_loss" in line)
    params, dataset = trained(finished_run), Text(text, "test", CONTEXT, CONTEXT // 2)
    apply = jax.jit(partial(writer, **TEXT))
    loss = count = 0
    for inputs, targets, weight in map(dataset.__getitem__, range(len(dataset))):
        logits, _ = apply(inputs[None], params=params)
        loss -= weight @ jax.nn.log_softmax(logits[0])[np.arange(CONTEXT), targets]
        count += weight.sum()
    assert count == 299
    assert last["test_loss"] == pytest.approx(float(loss) / 299, rel=1e-5)
    assert last["test_perplexity"] == pytest.approx(math.exp(last["test_loss"]))
    assert last["test_perplexity"] < first["test_perplexity"]


def test_a_run_stopped_and_resumed_ends_with_the_same_bits(config, run, finished_run, monkeypatch):
    monkeypatch.setattr(Text, "__getitem__", _signalling(Text.__getitem__, at=550))
    code, folder = run()
    assert code == 128 + signal.SIGINT
    monkeypatch.undo()
    monkeypatch.chdir(ROOT)
    code, folder = run("--resume", str(folder))
    assert code == 0
    assert same_arrays(*(read(find(one))[0] for one in (folder, finished_run)))


def _signalling(read, at):
    reads = iter(range(10**9))

    def getitem(self, index):
        if next(reads) == at:
            signal.raise_signal(signal.SIGINT)
        return read(self, index)

    return getitem


def test_sample_continues_the_prompt_by_the_seed_alone(finished_run, run_own_sample):
    arguments = "-w", finished_run, "--prompt", "In the beginning", "--characters", 20
    code, first = run_own_sample(*arguments, "--temperature", 1)
    assert code == 0
    assert first.out.startswith("In the beginning")
    assert len(first.out) == len("In the beginning") + 20 + len("\n")
    assert run_own_sample(*arguments, "--temperature", 1)[1].out == first.out
    assert run_own_sample(*arguments, "--temperature", 1, "--seed", 1)[1].out != first.out


def test_sample_without_temperature_writes_the_most_likely_characters(finished_run, run_own_sample):
    code, printed = run_own_sample(
        "-w", finished_run, "--prompt", "And Jesus said", "--characters", 20, "--temperature", 0
    )
    assert code == 0
    params, codes = trained(finished_run, best=True), list(b"And Jesus said")
    apply = jax.jit(partial(writer, **TEXT))
    for _ in range(20):  # most of them with more characters before them than its context
        seen = np.array(codes[-CONTEXT:])
        logits, _ = apply(seen[None], params=params)
        codes.append(int(logits[0, -1].argmax()))
    assert printed.out == bytes(codes).decode("ascii") + "\n"


def test_generation_with_a_cache_is_that_of_the_network_run_anew_each_time():
    length, heads = 12, 2
    _, params = writer(
        jnp.zeros((1, length), jnp.int32), length, 8, 2, heads, key=jax.random.key(1)
    )
    params = jax.tree.map(lambda leaf: 20 * leaf, params)  # else all tokens are as likely
    prompt, keys = [5, 17], jax.random.split(jax.random.key(3), 2 * length)
    apply = jax.jit(partial(writer, context=length, features=8, depth=2, heads=heads))
    for temperature, top_k in ((0, None), (1.0, None), (0.7, 3)):
        codes = list(prompt)
        for key in keys:
            logits, _ = apply(jnp.array([codes[-length:]]), params=params)
            codes.append(int(choose(logits[0, -1], key, temperature, top_k)))
        made = generate(params, prompt, 2 * length, jax.random.key(3), heads, temperature, top_k)
        assert list(made) == codes[2:]
        assert len(set(codes)) > 3


def test_tokens_are_drawn_among_the_most_likely_by_their_probabilities():
    logits = jnp.log(jnp.array([0.1, 0.2, 0.3, 0.4]))
    drawn = jax.vmap(lambda key: choose(logits, key, 1.0, 2))(
        jax.random.split(jax.random.key(0), 4000)
    )
    shares = np.bincount(np.asarray(drawn), minlength=4) / 4000
    np.testing.assert_allclose(shares, [0, 0, 3 / 7, 4 / 7], atol=0.03)
    assert choose(logits, jax.random.key(0), 0) == 3


def test_no_position_depends_on_another_document():
    """Checks the gradient of each output by the embedding of each position."""
    segments = jnp.array([[0, 0, 1, 1, 1, 2]])
    inputs = {"tokens": jnp.arange(6)[None], "segments": segments,
              "positions": jnp.array([[0, 1, 0, 1, 2, 0]])}  # fmt: skip
    _, params = writer(inputs, **TEXT, key=jax.random.key(0))

    def outputs(table):
        return writer(inputs, **TEXT, params=params | {"characters": {"table": table}})[0][0].sum(
            -1
        )

    depends = np.abs(jax.jacobian(outputs)(params["characters"]["table"])).sum(-1)[:, :6] > 0
    assert np.array_equal(depends, np.tril(segments[0][:, None] == segments[0]))


def test_sample_reports_errors(finished_run, run_own_sample, tmp_path):
    for arguments, expected in (
        (("-w", tmp_path), "there is no checkpoint here"),
        (("-w", finished_run, "--prompt", ""), "--prompt: expected one character or more"),
        (("-w", finished_run, "--prompt", "été"), "'été': expected ASCII characters"),
        (("-w", finished_run, "--top-k", "0"), "--top-k: 0; expected 1 or more"),
        (("-w", finished_run, "--temperature", "-1"), "--temperature: -1.0; expected 0 or more"),
    ):
        code, printed = run_own_sample(*arguments)
        assert code == 1
        assert printed.err.startswith("error: ")
        assert expected in printed.err


def test_a_text_that_cannot_be_used_raises_an_error(tmp_path):
    path = tmp_path / "text.txt"
    with pytest.raises(UserError, match="cannot read the text: No such file"):
        Text(path, "train")
    path.write_text("naïve" * 1000, encoding="utf-8")
    with pytest.raises(UserError, match="byte 2 is not an ASCII character"):
        Text(path, "train")
    path.write_text("short")
    with pytest.raises(UserError, match=r"'train' has 4 characters; expected more than context"):
        Text(path, "train")
    with pytest.raises(UserError, match="stride is 17; expected 1 to context, which is 16"):
        Text(path, "train", 16, 17)
    with pytest.raises(UserError, match="split is 'validation'; expected 'train' or 'test'"):
        Text(path, "validation")


@pytest.mark.parametrize("documents", [False, True])
def test_a_run_on_tokens_samples_at_each_epoch_and_resumes_to_the_bit(
    text, tmp_path, run_own_sample, documents
):
    folder = tmp_path / "tokens"
    words = ["--vocabulary", "300", "--separator", "", "--output"]
    assert tokenize.main([str(text), *words, str(folder)]) == 0
    values = json.loads((ROOT / "examples" / "text" / "tokens.json").read_text())
    values["model"]["args"] = TEXT | {"vocabulary": 300}
    for split in ("train", "test"):
        args = values["data_loader"][split]["args"]
        given = {"folder": str(folder), "context": CONTEXT, "stride": 8, "documents": documents}
        args["dataset"]["args"] |= given
        args["batch_size"] = 8
    values["training"] |= {"epochs": 2, "save_dir": str(tmp_path / "saved")}
    if documents:
        values["training"]["callbacks"] = []
    trained = train.fit(values)
    last = read(find(trained.folder))[0]
    assert trained.metrics["test_perplexity"] < 300
    if not documents:
        texts = (trained.folder / "media.jsonl").read_text().splitlines()
        assert len(texts) == 2
        assert all("And Jesus said" in one for one in texts)
        code, printed = run_own_sample("-w", trained.folder, "--prompt", "é", "--characters", 5)
        assert code == 0
        assert printed.out.startswith("é")
    train.fit(resume=str(trained.folder / "checkpoint-epoch_1.params"))
    assert same_arrays(read(find(trained.folder))[0], last)


def test_exported_files_have_the_same_logits(finished_run, tmp_path):
    arguments = ["--name", "writer", "-w", str(finished_run), "--into", str(tmp_path)]
    assert convert_tflite.main(arguments) == 0
    codes = np.frombuffer(b"In the beginning was the Word...", np.uint8).astype(np.int32)
    codes = codes.reshape(2, CONTEXT)
    wanted, _ = writer(codes, **TEXT, params=trained(finished_run, best=True))
    for suffix in (".onnx", ".tflite"):
        made = load(tmp_path / "writer" / f"writer{suffix}").run({"input": codes})["logits"]
        np.testing.assert_allclose(made, wanted, atol=1e-5)


def trained(run, best=False):
    """Returns the parameters of a run, as nested dicts."""
    params = {}
    for name, array in network_params(read(find(run, prefer_best=best))[0]).items():
        *path, last = name.split("/")
        inner = params
        for key in path:
            inner = inner.setdefault(key, {})
        inner[last] = array
    return params
