"""Checkpoints: written in the background, whole or not at all; believed once every byte is checked.

A checkpoint is one file in the safetensors format (https://github.com/huggingface/safetensors), so
anyone can open it, and it holds data only: a pickle can run code. One file comes and goes in one
step; a folder of many files (Orbax) can be killed half-deleted under its final name, and takes a
small state 20 times as long. The format has no checksums and loads a flipped bit without a word,
so its metadata holds, besides

    "meta"       the caller's JSON: epoch, batch, config, ...
    "checksums"  JSON: name -> CRC-32 of that array's name, dtype, shape and bytes
    "checksum"   CRC-32 of the two above

Arrays are named by their path: "step", "params/stem/kernel", "optimizers/0/mu/stem/kernel".
"""

import contextlib
import difflib
import errno
import json
import logging
import math
import os
import re
import secrets
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import ml_dtypes
import numpy as np

from utils import UserError

BEST = "checkpoint-best.params"
NUMBERED = re.compile(r"checkpoint-epoch_([0-9]+)(?:-batch_([0-9]+))?\.params")
TEMPORARY = ".tmp"  # ends the name of a file that is not whole yet
HEADER_LIMIT = 16 * 2**20  # bytes, enough for about 100,000 arrays
LISTED = 10  # names that an error shows of each kind
DTYPES = {"BOOL": np.bool_, "U8": np.uint8, "U16": np.uint16, "U32": np.uint32, "U64": np.uint64}
DTYPES |= {"I8": np.int8, "I16": np.int16, "I32": np.int32, "I64": np.int64}
DTYPES |= {"F16": np.float16, "F32": np.float32, "F64": np.float64, "C64": np.complex64}
DTYPES |= {"BF16": ml_dtypes.bfloat16, "F8_E5M2": ml_dtypes.float8_e5m2}
DTYPES |= {"F8_E4M3": ml_dtypes.float8_e4m3fn}
DTYPE_NAMES = {np.dtype(dtype): name for name, dtype in DTYPES.items()}
# All that bytes which are no checkpoint can provoke in `_load`.
DAMAGE = (ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError)
DAMAGE += (TypeError, ValueError)


def write(path, tree, meta):
    """Writes a tree of arrays to one file, which appears whole or not at all.

    Args:
        path: the file; one that is there is replaced.
        tree: nested dicts, tuples and NamedTuples of arrays, JAX's or NumPy's.
        meta: dict that JSON can hold.

    Raises:
        UserError: if the file cannot be written; an old one is then as it was.
        ValueError: if two arrays have one name, or the format has no place for a dtype.
    """
    _place(Path(path), _encode(_snapshot(tree), json.dumps(meta)))


def read(path):
    """Reads a checkpoint, and checks every byte of it.

    Returns:
        arrays: dict of name -> NumPy array.
        meta: the dict given to `write`.

    Raises:
        UserError: if the file cannot be read, is damaged, or is no checkpoint.
    """
    if not os.path.isfile(path):  # to open a named pipe would wait for ever
        raise UserError(f"{path}: there is no such file.")
    try:
        with _explained(path):
            return _load(path)
    except DAMAGE as error:
        whole = _newest_whole(Path(path))
        hint = f" The newest whole checkpoint beside it is {whole}." if whole else ""
        reason = f"{path} is damaged or not a checkpoint ({_reason(error)})."
        raise UserError(reason + hint) from error


def restore(template, arrays, prefix="", partial=None, where="the checkpoint"):
    """Fills a tree like the template with a checkpoint's arrays, which must fit it exactly.

    Args:
        template: tree of arrays; what comes back has its structure, shapes, dtypes and devices.
        arrays: dict of name -> array, from `read`.
        prefix: what the names begin with before the template's own, such as "params".
        partial: the only parts to take, such as ["stem", "stage1/norm"]; the rest keeps the
            template's values. None takes everything.
        where: what an error calls the checkpoint, such as its path.

    Raises:
        UserError: with a list of what is missing, not expected, or of another shape or dtype.
    """
    import jax

    start = f"{prefix}/" if prefix else ""
    wanted = {start + name: leaf for name, leaf in _named(template).items()}
    given = {name: array for name, array in arrays.items() if name.startswith(start)}
    names = list(wanted)
    if partial is not None:
        parts = [start + part.strip("/") for part in partial or [""]]  # [] is a mistake too
        _check_parts(parts, [*wanted, *given], where)
        wanted, given = _within(parts, wanted), _within(parts, given)
    _check_fit(wanted, given, where)

    def value(name, leaf):
        if name not in given:
            return leaf
        if not isinstance(leaf, jax.Array):
            return given[name]
        return jax.make_array_from_callback(leaf.shape, leaf.sharding, lambda at: given[name][at])

    leaves, structure = jax.tree.flatten(template)
    return jax.tree.unflatten(structure, map(value, names, leaves))


def network_params(arrays):
    """Returns the weights to evaluate: their running average where the run kept one.

    Returns:
        dict of name -> array, without the leading "params/": "stem/kernel".

    Raises:
        UserError: if the checkpoint holds no params.
    """
    params, average = (
        {name.removeprefix(top): array for name, array in arrays.items() if name.startswith(top)}
        for top in ("params/", "average/")
    )
    if not params:
        raise UserError(f"the checkpoint has no params, only {_some(arrays)}.")
    return params | average


def file_name(epoch, batch=None):
    """Returns the name for the end of `epoch`, or for when `batch` batches of it are done."""
    return f"checkpoint-epoch_{epoch}{'' if batch is None else f'-batch_{batch}'}.params"


def numbered(folder):
    """Returns the folder's numbered checkpoints, oldest first; an epoch's end ends the epoch."""
    with _explained(folder):
        names = os.listdir(folder) if os.path.isdir(folder) else []
    found = [match for match in map(NUMBERED.fullmatch, names) if match]
    found.sort(key=lambda match: (int(match[1]), int(match[2]) if match[2] else math.inf))
    return [path for match in found if os.path.isfile(path := Path(folder, match[0]))]


def latest(folder):
    """Returns the path of the last numbered checkpoint, or None."""
    return next(reversed(numbered(folder)), None)


def best(folder):
    """Returns the path of the best checkpoint, or None."""
    path = Path(folder, BEST)
    return path if os.path.isfile(path) else None


def find(path, prefer_best=False):
    """Returns the checkpoint that `path` names: the file, or a run folder's latest or best.

    A folder whose only checkpoint is the best gives that as its latest.

    Raises:
        UserError: if there is none.
    """
    if os.path.isfile(path):
        return Path(path)
    found = best(path) if prefer_best else latest(path) or best(path)
    if found is None:
        folder = path if os.path.isdir(path) else Path(path).parent
        there = [file.name for file in (best(folder), *reversed(numbered(folder))) if file]
        kind = "best checkpoint" if prefer_best else "checkpoint"
        raise UserError(f"{path}: there is no {kind} here; {folder} has {_some(there)}.")
    return found


class Saver:
    """Saves in the background, and keeps the latest few checkpoints and the best.

        with Saver(folder, keep=3) as saver:
            saver.save(state, meta, file_name(epoch), best=improved)

    The error of a save that failed is in `saver.failure`, and is raised once, by whichever comes
    next of `save`, `wait` and `close`. One process at a time may save into a folder.

    Args:
        folder: made if it is not there, and cleared of what a killed run left half-written.
        keep: how many numbered checkpoints stay, at least 1; None keeps all.
    """

    def __init__(self, folder, keep=None):
        if keep is not None and keep < 1:
            raise UserError(
                f"checkpoints to keep: expected at least 1, or null for all; got {keep}."
            )
        self.folder, self.keep = Path(folder), keep
        with _explained(folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            for stale in self.folder.glob(f"checkpoint-*{TEMPORARY}"):
                stale.unlink(missing_ok=True)
        self._worker, self._pending = ThreadPoolExecutor(1, "checkpoint"), None

    def __enter__(self):
        """Returns itself; leaving the block closes it."""
        return self

    def __exit__(self, kind, error, traceback):
        """Closes; an error that is under way stays the one that is raised."""
        try:
            self.close()
        except UserError as failure:
            if error is None:
                raise
            logging.getLogger(__name__).error("%s", failure)

    @property
    def failure(self):
        """The error of the last save, if that has failed and nothing has raised it yet."""
        ended = self._pending is not None and self._pending.done()
        return self._pending.exception() if ended else None

    def save(self, state, meta, name, best=False):
        """Waits for the last save, takes a snapshot and returns; the file is written behind.

        Args:
            state: tree of arrays; they may be donated right after.
            meta: dict that JSON can hold.
            name: from `file_name`, or None where no numbered checkpoint is due.
            best: whether to write the best checkpoint, which is a file of its own.

        Raises:
            UserError: if the last save failed; this one is then not begun.
        """
        self.wait()
        names = [name] * (name is not None) + [BEST] * best
        if names:
            work = names, _snapshot(state), json.dumps(meta)
            self._pending = self._worker.submit(self._write, *work)

    def wait(self):
        """Returns when the last save is safely on disk; raises its error if it failed."""
        if self._pending is not None:
            failure = self._pending.exception()
            self._pending = None
            if failure:
                raise failure

    def close(self):
        """Does what `wait` does, and ends the background thread."""
        try:
            self.wait()
        finally:
            self._worker.shutdown()

    def _write(self, names, arrays, meta):
        try:
            pieces = _encode(arrays, meta)
            for name in names:
                _place(self.folder / name, pieces)
            old = [path for path in numbered(self.folder) if path.name not in names]
            stay = len(old) if self.keep is None else self.keep - (names != [BEST])
            with _explained(self.folder):
                for path in old[: max(0, len(old) - stay)]:
                    path.unlink(missing_ok=True)
        except (MemoryError, ValueError) as error:
            raise UserError(f"{self.folder / names[0]}: not saved: {_reason(error)}.") from error


def _named(tree):
    """The leaves by name."""
    import jax

    named = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if name in named or name == "__metadata__":
            raise ValueError(f"{name}: the name is taken, rename that array of the state")
        if isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            raise ValueError(f"{name} is a typed key, keep jax.random.key_data of it in the state")
        named[name] = leaf
    return named


def _snapshot(tree):
    """The leaves by name, as NumPy arrays that stay as they are when the state is donated.

    On a CPU they are views and cost nothing: JAX donates no buffer that a view looks into.
    """
    import jax

    named = _named(tree)
    for leaf in named.values():
        if isinstance(leaf, jax.Array):
            leaf.copy_to_host_async()
    return {
        name: np.array(leaf, order="C", copy=None if isinstance(leaf, jax.Array) else True)
        for name, leaf in named.items()
    }


def _encode(arrays, meta):
    """The file as a list of buffers; those of the arrays are their own memory."""
    entries, checksums, pieces, end = {}, {}, [], 0
    # Largest items first, so that each array begins at a multiple of its item's size.
    for name, array in sorted(arrays.items(), key=lambda item: -item[1].itemsize):
        if array.dtype not in DTYPE_NAMES:
            raise ValueError(f"{name} has dtype {array.dtype}, expected one of {', '.join(DTYPES)}")
        dtype, shape = DTYPE_NAMES[array.dtype], list(array.shape)
        begin, end = end, end + array.nbytes
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
        pieces.append(_bytes(array))
        checksums[name] = _checksum(name, dtype, shape, data=pieces[-1])
    sums = json.dumps(checksums)
    metadata = {"meta": meta, "checksums": sums, "checksum": str(_checksum(meta, sums))}
    header = json.dumps({"__metadata__": metadata, **entries}).encode()
    header += b" " * (-len(header) % 8)
    if len(header) > HEADER_LIMIT:
        raise ValueError(f"names and meta take {len(header)} bytes, more than {HEADER_LIMIT}")
    return [len(header).to_bytes(8, "little"), header, *pieces]


def _load(path):
    """Returns (arrays, meta) of a whole file; any other raises one of DAMAGE."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        size = os.fstat(file.fileno()).st_size - 8 - length  # of all arrays, in bytes
        _expect(0 < length <= HEADER_LIMIT and size >= 0, "its header is cut off or too long")
        header = json.loads(file.read(length).decode(), object_pairs_hook=_unique)
        metadata = header.pop("__metadata__")
        meta, sums = metadata["meta"], metadata["checksums"]
        _expect(metadata["checksum"] == str(_checksum(meta, sums)), "its metadata has changed")
        meta, checksums = json.loads(meta), json.loads(sums)
        _expect(isinstance(meta, dict) and checksums.keys() == header.keys(), "its parts disagree")
        arrays, end = {}, 0
        for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
            dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
            _expect(len(shape) <= 64 and all(0 <= n < 2**63 for n in shape), "a shape cannot be")
            begin, end = end, end + math.prod(shape) * np.dtype(DTYPES[dtype]).itemsize
            _expect(offsets == [begin, end] and end <= size, f"{name!r} is not in its place")
            arrays[name] = np.empty(shape, DTYPES[dtype])
            file.readinto(_bytes(arrays[name]))
            checksum = _checksum(name, dtype, shape, data=_bytes(arrays[name]))
            _expect(checksums[name] == checksum, f"{name!r} has changed")
        _expect(end == size, "it has bytes that belong to nothing")
    return arrays, meta


def _expect(true, otherwise):
    if not true:
        raise ValueError(otherwise)


def _unique(pairs):
    unique = dict(pairs)
    _expect(len(unique) == len(pairs), "a name stands there twice")
    return unique


def _bytes(array):
    return array.reshape(-1).view(np.uint8)


def _checksum(*words, data=b""):
    return zlib.crc32(data, zlib.crc32(json.dumps(words).encode()))


def _newest_whole(path):
    """The newest whole checkpoint beside a damaged one, or None."""
    for other in (*reversed(numbered(path.parent)), best(path.parent)):
        if other is not None and other.name != path.name:
            with contextlib.suppress(OSError, *DAMAGE):
                _load(other)
                return other


def _place(path, pieces):
    """Writes the buffers under a temporary name, and gives the file its own once it is on disk."""
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}{TEMPORARY}")
    try:
        with _explained(path):
            with open(temporary, "xb") as file:
                file.writelines(pieces)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
            _sync_folder(path.parent)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _sync_folder(folder):
    """Forces a new name to disk; where a system cannot, only a power cut may lose the name."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextlib.contextmanager
def _explained(path):
    """Turns an error of the operating system into one that says where, and how to mend it."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        remedy = "make room there" if full else "check that it may be read and written"
        message = f"{path}: {error.strerror}: {remedy}, or choose another folder."
        raise UserError(message) from error


def _within(parts, named):
    return {
        name: leaf
        for name, leaf in named.items()
        if any(f"{name}/".startswith(f"{part}/") for part in parts)
    }


def _check_parts(parts, names, where):
    """Raises UserError for a part that no name is within."""
    paths = {name[: end.start()]: None for name in names for end in re.finditer("/|$", name)}
    for part in parts:
        if part not in paths:
            near = difflib.get_close_matches(part, paths, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"there are {_some(paths)}."
            raise UserError(f"{where}: no part is named {part!r}; {hint}")


def _check_fit(wanted, given, where):
    """Raises UserError with the list of all that differs."""
    wanted = {name: _kind(leaf) for name, leaf in wanted.items()}
    given = {name: _kind(array) for name, array in given.items()}
    misfits = {"missing": [], "not expected": [], "different": []}
    for name in wanted | given:
        if name not in given:
            misfits["missing"].append(f"{name}: {wanted[name]}")
        elif name not in wanted:
            misfits["not expected"].append(f"{name}: {given[name]}")
        elif wanted[name] != given[name]:
            misfits["different"].append(f"{name}: {given[name]}, expected {wanted[name]}")
    lines = []
    for title, names in misfits.items():
        lines += [f"  {len(names)} {title}:"] * bool(names)
        lines += [f"    {name}" for name in names[:LISTED]] + ["    ..."] * (len(names) > LISTED)
    if lines:
        advice = "Use the config and the model code it was saved with, or take only parts that fit."
        raise UserError("\n".join([f"{where} does not fit.", *lines, advice]))


def _kind(leaf):
    dtype = leaf.dtype if hasattr(leaf, "dtype") else np.asarray(leaf).dtype
    return f"{dtype} {np.shape(leaf)}"


def _reason(error):
    text = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
    return text[:200]


def _some(names):
    shown = ", ".join(list(names)[:LISTED]) or "none"
    return shown if len(names) <= LISTED else f"{shown}, ... ({len(names)} in all)"
