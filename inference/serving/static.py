"""Writes the demo as a folder for any server of files: the visitor's browser computes."""

import json
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from inference.serving import drawing, page
from inference.serving.classifier import outside
from inference.verify import runtimes
from utils import UserError

PACKAGE = "onnxruntime-web@1.30.0"  # of npm
RUNTIME = {  # the page's name of each file: that in the package; not every server knows .mjs
    "ort.js": "ort.wasm.min.js",
    "ort-wasm.js": "ort-wasm-simd-threaded.mjs",
    "ort-wasm.wasm": "ort-wasm-simd-threaded.wasm",
}
SOURCES = ("demo.css", "demo.js", "static.js")
DTYPES = ("uint8", "int32", "float32")  # of inputs, which static.js has arrays for
POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; "
    "connect-src 'self'; img-src blob: data:; base-uri 'none'; form-action 'none'"
)


def write_static(path, folder, runtime=None):
    """Writes the page of an exported network, its ONNX file and the browser's runtime.

    Args:
        path: of the .onnx file.
        folder: to write; an earlier page there is replaced.
        runtime: folder with the files of RUNTIME; None fetches them with npm.

    Returns:
        The number of bytes written.

    Raises:
        UserError: the network takes or gives something else than the demo shows, the runtime's
            files cannot be had, or the folder cannot be written.
    """
    path, folder = Path(path), Path(folder)
    if path.suffix != ".onnx":
        raise UserError(f"--name {path}: a page without a server takes the .onnx file")
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--static {folder}: is a file; expected a folder")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "static.js").exists():
        raise UserError(f"--static {folder}: holds something else; expected a new folder")
    demo = page.Demo(str(path))
    static = {"policy": POLICY, "network": json.dumps(_network(demo, path))}
    html = demo.render(static=static, where="in your browser: pictures stay there")
    with tempfile.TemporaryDirectory() as fetched:
        source = Path(runtime) if runtime else _fetch(Path(fetched))
        files = {name: source / original for name, original in RUNTIME.items()}
        missing = [file.name for file in files.values() if not file.is_file()]
        if missing:
            raise UserError(
                f"--ort {source}: no {', '.join(missing)}; expected the folder dist/ of the npm "
                f"package {PACKAGE}"
            )
        files |= {name: page.HERE / name for name in SOURCES} | {path.name: path}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name, file in files.items():
                shutil.copyfile(file, folder / name)
            (folder / "index.html").write_text(html, encoding="utf-8", errors="backslashreplace")
            return sum((folder / name).stat().st_size for name in (*files, "index.html"))
        except OSError as error:
            raise UserError(f"--static {folder}: cannot be written: {error.strerror}") from None


def _network(demo, path):
    """What static.js must know of the network, as JSON values."""
    (file,) = demo.files
    classifier = file.classifier
    ((name, (_, dtype)),) = runtimes.load(path, threads=1).inputs.items()
    if dtype.name not in DTYPES:
        raise UserError(f"{path}: takes {dtype}; a page can give it {', '.join(DTYPES)}")
    metadata = classifier.metadata
    return {
        "file": path.name,
        "input": name,
        "dtype": dtype.name,
        "shape": classifier.shape,
        "batch": classifier.batch or 1,
        "output": classifier.output,
        "kind": classifier.kind,
        "classes": classifier.classes,
        "normalize": outside(path, metadata.get("preprocess"), classifier.shape[0]) or None,
        "valueRange": metadata.get("value_range"),
        "rows": page.SHOWN,
        "recent": page.RECENT,
        "side": page.SIDE,
        "maxPixels": page.MAX_PIXELS,
        "maxPixelsJpeg": page.MAX_PIXELS_JPEG,
        "likeMnist": page.LIKE_MNIST,
        "box": drawing.BOX,
        "faintest": drawing.FAINTEST,
        "weakest": drawing.WEAKEST,
    }


def _fetch(folder):
    """Fetches the runtime with npm into a folder; returns the folder with its files."""
    npm, otherwise = shutil.which("npm"), f"--ort FOLDER names dist/ of the npm package {PACKAGE}"
    if npm is None:
        raise UserError(f"--static: npm, which fetches the runtime, is not installed; {otherwise}")
    command = [npm, "pack", "--silent", PACKAGE, "--pack-destination", str(folder)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[0][:200]
        raise UserError(f"--static: npm cannot fetch {PACKAGE} ({reason}); {otherwise}")
    (archive,) = folder.glob("*.tgz")
    with tarfile.open(archive) as packed:
        for name in RUNTIME.values():
            packed.extract(f"package/dist/{name}", folder, filter="data")
    return folder / "package" / "dist"
