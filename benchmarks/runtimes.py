"""Shows which exported file runs in which runtime, old and new, and with which error.

    python benchmarks/runtimes.py FOLDER [NAME=PYTHON ...] [NAME=node:NODE_MODULES ...]

Files of six networks are written to FOLDER, unless it has them. Each PYTHON is the interpreter of
an environment with one runtime (tflite-runtime, ai-edge-litert or onnxruntime) and NumPy;
NODE_MODULES has onnxruntime-web. Files are run in batches of 1, 3 and 64, each in a process of its
own. The error is the largest difference to JAX (of quantised files to LiteRT here) over the largest
output; "refused" is with the runtime's own words, "DIED" is a crash.
"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

BATCHES = (1, 3, 64)
KINDS = ("float16", "dynamic", "int8")
NODE = """
const [folder, file, modules] = process.argv.slice(1);
const fs = require("fs"), ort = require(modules + "/onnxruntime-web");
const given = JSON.parse(fs.readFileSync(`${folder}/inputs.json`))[file.split(".")[0]];
const types = { float32: Float32Array, int32: Int32Array };
(async () => {
  const session = await ort.InferenceSession.create(`${folder}/${file}`);
  const found = [];
  for (const { dtype, shape, values } of given) {
    const feeds = { input: new ort.Tensor(dtype, types[dtype].from(values), shape) };
    const outputs = await session.run(feeds);
    const lists = Object.entries(outputs).map(([name, one]) => [name, [...one.data].map(Number)]);
    found.push(Object.fromEntries(lists));
  }
  console.log(JSON.stringify(found));
})().catch((error) => { console.error(error.message); process.exit(1); });
"""


def main(folder, *runtimes):
    """Writes the files if need be, and prints a table for each kind of file."""
    folder = Path(folder)
    if not (folder / "inputs.json").exists():
        make_files(folder)
    expected = json.loads((folder / "expected.json").read_text())
    files = sorted(path.name for path in folder.glob("*.*") if path.suffix in (".onnx", ".tflite"))
    for runtime in runtimes:
        name, _, program = runtime.partition("=")
        version, suffix = _version(program)
        print(f"\n{name}: {version}")
        for file in (one for one in files if one.endswith(suffix)):
            wanted = expected.get(file) or expected[file.split(".")[0]]
            print(f"  {file:<28} {_try(folder, file, program, wanted)}", flush=True)


def _version(program):
    """The version of a runtime, and the suffix of the files that it takes."""
    if program.startswith("node:"):
        package = Path(program[5:]) / "onnxruntime-web/package.json"
        return f"onnxruntime-web {json.loads(package.read_text())['version']}", ".onnx"
    done = subprocess.run([program, __file__, "--version"], capture_output=True, text=True)
    return done.stdout.strip(), ".onnx" if done.stdout.startswith("onnxruntime") else ".tflite"


def _try(folder, file, program, expected):
    """The error of a file in a runtime, or why there is none."""
    command = [program, __file__, "--run", str(folder), file]
    if program.startswith("node:"):
        command = ["node", "-e", NODE, str(folder.resolve()), file, program[5:]]
    done = subprocess.run(command, capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith("[{")]
    if not lines and done.returncode > 0:
        said = [line for line in done.stderr.splitlines() if line.strip()] or ["nothing said"]
        chosen = next((line for line in said if "Didn't find" in line), said[-1])
        return f"refused: {chosen.strip()[:150]}"
    worst = max(map(_error, json.loads(lines[0]), expected)) if lines else float("nan")
    return f"{worst:.1e}" + (f", DIED with {done.returncode}" if done.returncode else "")


def _error(outputs, expected):
    """The largest error of a batch's outputs, relative; of integers the share that differ."""
    worst = 0.0
    for name, wanted in expected.items():
        found, wanted = np.ravel(outputs[name]), np.ravel(wanted)
        if wanted.dtype.kind == "i":
            worst = max(worst, float((found != wanted).mean()))
        else:
            worst = max(worst, float(np.abs(found - wanted).max() / np.abs(wanted).max()))
    return worst


def outputs_of(folder, file):
    """Returns [{name: list}], the outputs for each batch, by the runtime of this environment."""
    given = json.loads((Path(folder) / "inputs.json").read_text())[file.split(".")[0]]
    inputs = [np.array(one["values"], one["dtype"]).reshape(one["shape"]) for one in given]
    path, found = str(Path(folder) / file), []
    if file.endswith(".onnx"):
        import onnxruntime

        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        names = [one.name for one in session.get_outputs()]
        for one in inputs:
            found.append(dict(zip(names, session.run(names, {"input": one}), strict=True)))
    else:
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError:
            from tflite_runtime.interpreter import Interpreter
        runner = Interpreter(path).get_signature_runner()
        found = [runner(input=one) for one in inputs]
    return [{name: one.tolist() for name, one in outputs.items()} for outputs in found]


def make_files(folder):
    """Exports the networks, quantises them, and keeps inputs and JAX's outputs as JSON."""
    import jax
    from export_networks import _params

    from inference.export.converter import import_tensorflow, to_raw_onnx, to_tflite
    from inference.export.network import Array, describe, lower
    from inference.export.quantize import quantize
    from inference.export.worker import Worker
    from inference.graph.onnx_direct import to_onnx
    from inference.graph.onnx_graph import finish

    folder.mkdir(parents=True, exist_ok=True)
    inputs, expected = {}, {}
    with Worker(folder / "log", import_tensorflow) as worker:
        for title, function, shape, dtype in networks():
            params = _params(function, [("input", shape, dtype)])
            array = Array("input", shape, np.dtype(dtype))
            network = describe(lambda x, f=function, p=params: f(x, params=p)[0], [array])
            path = folder / f"{title}.tflite"
            lowered = [lower(network, batch) for batch in (2, 3)]
            path.write_bytes(worker.run(to_tflite, lowered, network.names))
            try:
                raw = worker.run(to_raw_onnx, path.read_bytes())
                content = finish(raw, network.names)
            except Exception:
                content = to_onnx(network, (2, 3))
            path.with_suffix(".onnx").write_bytes(content)
            random = np.random.default_rng(0)
            batches = [_draw(random, dtype, (size, *shape)) for size in BATCHES]
            for kind in KINDS:
                try:
                    content = quantize(path, kind, [{"input": one} for one in batches], worker.log)
                    (folder / f"{title}.{kind}.tflite").write_bytes(content)
                except Exception as error:
                    print(f"{title}.{kind}.tflite: not made: {str(error)[:200]}")
            jitted = jax.jit(network.function)
            inputs[title] = [
                {"dtype": dtype, "shape": one.shape, "values": one.ravel().tolist()}
                for one in batches
            ]
            names = network.names[1]
            found = [jax.device_get(jitted(batch)) for batch in batches]
            expected[title] = [
                {name: one.tolist() for name, one in zip(names, outputs, strict=True)}
                for outputs in found
            ]
    (folder / "inputs.json").write_text(json.dumps(inputs))
    for file in sorted(folder.glob("*.*.tflite")):
        expected[file.name] = outputs_of(folder, file.name)
    (folder / "expected.json").write_text(json.dumps(expected))


def networks():
    """Returns (title, function, shape, dtype) of the networks."""
    import jax
    import jax.numpy as jnp
    from export_networks import two_blocks

    from model.model import mnist_model, transformer_block
    from model.modules import Layers, embedding, linear

    def lstm(x, features=32, *, params=None, key=None, train=False):
        layer = Layers(params, key, train)
        x = jnp.swapaxes(layer("gates", linear, x, 4 * features), 0, 1)
        weights = layer("again", linear, jnp.eye(features), 4 * features)

        def step(state, row):
            hidden, cell = state
            i, f, g, o = jnp.split(row + hidden @ weights, 4, axis=-1)
            cell = jax.nn.sigmoid(f) * cell + jax.nn.sigmoid(i) * jnp.tanh(g)
            return (jax.nn.sigmoid(o) * jnp.tanh(cell), cell), None

        zero = jnp.zeros((x.shape[1], features))
        (hidden, _), _ = jax.lax.scan(step, (zero, zero), x)
        return layer("head", linear, hidden, 10), layer.params

    def choices(x, *, params=None, key=None, train=False):
        layer = Layers(params, key, train)
        logits = layer("head", linear, jax.nn.relu(layer("hidden", linear, x, 64)), 10)
        return {"label": logits.argmax(-1), "p": jax.nn.softmax(logits)}, layer.params

    def best(x, *, params=None, key=None, train=False):
        outputs, params = choices(x, params=params, key=key, train=train)
        values, places = jax.lax.top_k(outputs["p"], 3)
        return {"values": values, "places": places}, params

    def transformer(x, *, params=None, key=None, train=False):
        layer = Layers(params, key, train)
        y = layer("tokens", embedding, x, 50, 32)
        mask = jnp.tril(jnp.ones((x.shape[1], x.shape[1]), bool))
        for block in range(2):
            y = layer(f"block{block}", transformer_block, y, 4, mask)
        return layer("head", linear, y, 50), layer.params

    picture = ((1, 28, 28), "float32")
    return [
        ("sample", mnist_model, *picture), ("vit", two_blocks, *picture),
        ("lstm", lstm, (28, 28), "float32"), ("argmax", choices, (16,), "float32"),
        ("top_k", best, (16,), "float32"), ("transformer", transformer, (24,), "int32"),
    ]  # fmt: skip


def _draw(random, dtype, shape):
    if dtype == "int32":
        return random.integers(0, 50, shape, dtype)
    return random.normal(size=shape).astype(dtype)


if __name__ == "__main__":
    if sys.argv[1] == "--version":
        from importlib import metadata

        names = ("tflite-runtime", "ai-edge-litert", "onnxruntime")
        there = {one.metadata["Name"].lower().replace("_", "-") for one in metadata.distributions()}
        print(*(f"{name} {metadata.version(name)}" for name in names if name in there))
    elif sys.argv[1] == "--run":
        print(json.dumps(outputs_of(*sys.argv[2:])), flush=True)
    else:
        sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
        main(*sys.argv[1:])
