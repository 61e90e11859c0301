"""Finds the image files in folders, by one rule for training and prediction.

A folder is searched with all that is in it, through links too, each folder once. What is an image
follows from the content of a file. Hidden files and folders, and those of operating systems, are
left out, as are files that neither are images nor have an image's ending. A file with the ending of
an image that is none is an error: an image is missing that someone counts on.
"""

import os
import stat
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from data_loader.file_kinds import HEAD, describe
from data_loader.images import explain, open_image, possible_formats
from utils import UserError, printable

ENDINGS = (
    ".apng", ".avif", ".bmp", ".dds", ".dib", ".gif", ".heic", ".heif", ".hif", ".icns", ".ico",
    ".j2c", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpf", ".jpg", ".jpx", ".jxl", ".mpo",
    ".pbm", ".pcx", ".pgm", ".png", ".pnm", ".ppm", ".psd", ".qoi", ".tga", ".tif", ".tiff",
    ".webp",
)  # fmt: skip
UNFINISHED = (".bak", ".crdownload", ".download", ".part", ".tmp", "~")
SYSTEM = (
    "$recycle.bin", "@eadir", "__macosx", "__pycache__", "desktop.ini", "ehthumbs.db", "icon\r",
    "lost+found", "system volume information", "thumbs.db",
)  # fmt: skip
SPLITS = frozenset(("dev", "eval", "test", "train", "training", "val", "valid", "validation"))
THREADS, CHUNK = 16, 64  # that look into files, and files at a time: on a network each look waits
SHOWN, MOST = 3, 10  # paths of each reason, and refused files, in a message
INSPECT = "`python -m data_loader.inspect -c config.json` lists all that cannot be read."
SPECIAL = {stat.S_IFIFO: "FIFO", stat.S_IFSOCK: "socket"}


class Found(NamedTuple):
    """The files in a folder.

    Attributes:
        images: paths of the images, sorted.
        left_out: {reason: paths of the files and folders that are left out for it}
        refused: {path: why it cannot be read} of files that are images by their name or content.
    """

    images: list[str]
    left_out: dict[str, list[str]]
    refused: dict[str, str]

    def leave_out(self, others: dict[str, list[str]]) -> None:
        """Adds more that is left out, {reason: paths}."""
        for reason, paths in others.items():
            self.left_out.setdefault(reason, []).extend(paths)


def find_images(folder: str | Path) -> Found:
    """Finds the images in a folder, by the rule above.

    Raises:
        UserError: the folder, or one in it, cannot be listed.
    """
    files, left_out = _walk(os.fspath(folder))
    found = sort_files(files)
    found.leave_out(left_out)
    return found


def sort_files(paths: Iterable[str]) -> Found:
    """Sorts files into images and others, by their content."""
    paths = sorted(paths)
    chunks = [paths[start : start + CHUNK] for start in range(0, len(paths), CHUNK)]
    found = Found([], {}, {})
    with ThreadPoolExecutor(THREADS) as pool:
        results = pool.map(lambda chunk: [examine(path) for path in chunk], chunks)
        for path, (verdict, reason) in zip(paths, chain.from_iterable(results), strict=True):
            if verdict == "image":
                found.images.append(path)
            elif verdict == "refused":
                found.refused[path] = reason
            else:
                found.left_out.setdefault(reason, []).append(path)
    return found


def find_classes(
    root: str | Path, classes: Sequence[str] | None = None
) -> tuple[dict[str, list[str]], Found]:
    """Finds the images in a folder per class.

    Args:
        root: folder that contains a folder per class.
        classes: names of the classes in the order of their labels; None for all folders, sorted.

    Returns:
        {class: sorted paths of its images}, a class being named as its folder, in `printable` form;
        and all that was found.

    Raises:
        UserError: there is no folder, one is empty or cannot be listed, or is not in `classes`.
    """
    folders, left_out = _class_folders(root, classes)
    walked = {name: _walk(folder) for name, folder in folders.items()}
    found = sort_files(file for files, _ in walked.values() for file in files)
    for more in (left_out, *(out for _, out in walked.values())):
        found.leave_out(more)
    used = set(found.images)
    images = {printable(name): [] for name in classes or ()}
    for name, (files, _) in walked.items():
        images[name] = sorted(used.intersection(files))
        if not images[name] and not found.refused.keys() & files:
            mine = find_images(folders[name]).left_out
            raise UserError(
                f"{printable(folders[name])}: no picture{summary(mine, ', but ')}. "
                "Fill or delete the folder."
            )
    return images, found


def examine(path: str) -> tuple[str, str]:
    """Returns "image", "refused" or "left out" for a file, by its first bytes; and the reason."""
    name = os.path.basename(path)
    if company := _company(name):
        return "left out", company
    if name.lower().endswith(UNFINISHED):
        return "left out", "backup or unfinished download"
    ending = os.path.splitext(path)[1].lower()
    try:
        with open(path, "rb") as file:
            head = file.read(HEAD)
    except OSError as error:
        verdict = "refused" if ending in ENDINGS else "left out"
        return verdict, f"cannot be read: {error.strerror}"
    if possible_formats(head, path):
        if ending in ENDINGS:
            return "image", ""
        try:  # the marks of some formats are short: they are read further
            with open_image(path):
                return "image", ""
        except UserError as error:
            reason = str(error).rpartition(": cannot be read as a picture: ")[2]
    else:
        reason = explain(head)
    kind = describe(head)
    refused = ending in ENDINGS or kind.endswith("image") or kind.startswith("camera raw")
    return ("refused", reason) if refused else ("left out", kind)


def refuse(refused: dict[str, str]) -> None:
    """Raises a UserError for files that look like images and cannot be read, if there are any."""
    if not refused:
        return
    lines = [f"{printable(path)}: {reason}" for path, reason in refused.items()]
    what = "1 file that cannot be read as a picture"
    if len(lines) > 1:
        what = f"{len(lines)} files that cannot be read as pictures"
    more = "; ..." if len(lines) > MOST else ""
    shown = "; ".join(lines[:MOST]) + more
    raise UserError(f"{what}: {shown}. Replace or delete what is listed; {INSPECT}")


def summary(left_out: dict[str, list[str]], start: str = "") -> str:
    """Returns `start` and "3 hidden (a/.x, a/.y, ...), 1 text file (a/b.txt)"; "" for nothing."""
    parts = []
    for reason, paths in sorted(left_out.items(), key=lambda one: (-len(one[1]), one[0])):
        shown = ", ".join(map(printable, paths[:SHOWN])) + ", ..." * (len(paths) > SHOWN)
        parts.append(f"{len(paths)} x {reason} ({shown})")
    return start + ", ".join(parts) if parts else ""


def _class_folders(root, classes):
    """The folders of the classes, {name: path}; and what is left out beside them."""
    if not os.path.isdir(root):
        raise UserError(
            f"{printable(root)}: no such folder; expected one that contains a folder of pictures "
            "per class. Fix `root`."
        )
    folders, left_out = {}, defaultdict(list)
    for entry in _list(os.fspath(root)):
        if company := _company(entry.name):
            left_out[company].append(entry.path)
        elif os.path.isdir(entry.path):
            folders.setdefault(printable(entry.name), []).append(entry.path)
        else:
            left_out["file beside the folders of the classes"].append(entry.path)
    expected = (
        f"expected a folder of pictures per class, {printable(root)}/<class>/*.jpg. "
        "Fix `root` or `classes`."
    )
    unknown = sorted(set(folders) - set(map(printable, classes or folders)))
    if unknown or not folders:
        got = f"the folders {unknown}, not in `classes`" if unknown else "no folder"
        raise UserError(f"{printable(root)}: {got}{summary(left_out, '; ')}; {expected}")
    if not classes and SPLITS.issuperset(name.lower() for name in folders):
        raise UserError(
            f"{printable(root)}: the folders {sorted(folders)} are splits, not classes; {expected}"
        )
    twins = [paths for paths in folders.values() if len(paths) > 1]
    if twins:
        raise UserError(f"{printable(twins[0][0])}: two folders have this name. Rename one.")
    return {name: paths[0] for name, paths in folders.items()}, left_out


def _walk(folder):
    """The files in a folder and all below it, and what is left out by its name, {reason: paths}."""
    files, left_out = [], defaultdict(list)
    seen = {_identity(one) for one in [Path(folder).resolve(), *Path(folder).resolve().parents]}
    waiting = [folder]
    while waiting:
        for entry in _list(waiting.pop()):
            if reason := _company(entry.name) or _special(entry.path):
                left_out[reason].append(entry.path)
            elif not os.path.isdir(entry.path):
                files.append(entry.path)
            elif (identity := _identity(entry.path)) in seen:
                left_out["link to a folder that is searched anyway"].append(entry.path)
            else:
                seen.add(identity)
                waiting.append(entry.path)
    return files, left_out


def _list(folder):
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(f"{printable(folder)}: cannot be listed: {error.strerror}") from error


def _identity(folder):
    try:
        status = os.stat(folder)
        return status.st_dev, status.st_ino
    except OSError:  # it has just been deleted; listing it says so
        return folder


def _company(name):
    """Why a file or folder is left out for its name alone; None if it is not."""
    if name.startswith("."):
        return "hidden"
    return "of the operating system" if name.lower() in SYSTEM else None


def _special(path):
    """Why a path is no file or folder to be read; None if it is one."""
    try:
        kind = stat.S_IFMT(os.stat(path).st_mode)
    except OSError as error:
        return "broken link" if os.path.islink(path) else f"cannot be read: {error.strerror}"
    return None if kind in (stat.S_IFREG, stat.S_IFDIR) else SPECIAL.get(kind, "device")
