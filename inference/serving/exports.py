"""Finds exported files: by the name of an export in inference/, by its folder, or by their path."""

import glob
from pathlib import Path

from utils import UserError, nearest

HOME = Path(__file__).resolve().parents[1]  # inference/, in which an export is found by its name
SUFFIXES = {"onnx": ".onnx", "tflite": ".tflite", "jax": ".stablehlo"}  # of the runtimes' files


def find_export(name, runtime=None):
    """Returns the path of an exported file.

    Args:
        name: the file, the folder of its export, or the name of an export in inference/.
        runtime: key of SUFFIXES; None for that of the file, and ONNX for a folder.

    Raises:
        UserError: there is no such export, or it has no such file; lists those there are.
    """
    path, suffix = Path(name), SUFFIXES[runtime or "onnx"]
    if path.is_file():
        if runtime and path.suffix != suffix:
            raise UserError(f"--name {name}: --runtime {runtime} takes a file ending in {suffix}")
        return path
    for folder in (path.resolve(), HOME / path):
        files = exported_files(folder)
        if (wanted := folder.name + suffix) in files:
            return folder / wanted
        if files:
            raise UserError(
                f"{folder}: no {wanted}; there is {', '.join(files)}. "
                "Name one of them by its path, or export the network again"
            )
    known = [folder.name for folder in HOME.glob("*") if is_export(folder)]
    raise UserError(
        f"--name {name}: no such export, here or in {HOME}; inference/convert_tflite.py makes one"
        f"{nearest(name, known)}"
    )


def is_export(folder):
    """Whether a folder is an export, not one of the project's own folders in inference/."""
    return (folder / "report.json").is_file() or bool(exported_files(folder))


def exported_files(folder):
    """Returns the sorted names of an export's files, rejected ones included; of others, none."""
    endings = (*SUFFIXES.values(), ".rejected")
    files = folder.glob(f"{glob.escape(folder.name)}.*")
    return sorted(file.name for file in files if file.name.endswith(endings))
