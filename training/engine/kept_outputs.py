"""Arrays that are kept of every batch of an evaluation: in memory, beyond a limit in files."""

import tempfile
from math import prod

import jax
import numpy as np

from utils import UserError

MOST_IN_MEMORY = 2**30  # bytes of an evaluation


class KeptOutputs:
    """Trees of (examples, ...) arrays, batch after batch, which `join` returns as one tree.

    Beyond MOST_IN_MEMORY they are in files without a name, in the folder that TMPDIR names: nothing
    remains of them, even where the process is killed.
    """

    def __init__(self):
        self._chunks, self._files = [], None
        self._bytes = self._examples = 0
        self._structure = self._types = None

    def add(self, tree):
        """Keeps a tree of NumPy arrays, (examples, ...)."""
        leaves, structure = jax.tree.flatten(tree)
        types = [(leaf.dtype, leaf.shape[1:]) for leaf in leaves]
        self._structure, self._types = self._structure or structure, self._types or types
        if types != self._types:
            raise UserError(
                f"outputs and targets of a batch are {_shown(types)}, those of the first batch "
                f"{_shown(self._types)}; what is computed of all together needs one shape: pad "
                "them to one length, or give a weight for each position"
            )
        self._examples += len(leaves[0])
        self._bytes += sum(leaf.nbytes for leaf in leaves)
        self._chunks.append(leaves)
        if self._bytes > MOST_IN_MEMORY:
            self._write()

    def join(self):
        """Returns the tree of everything kept, which is then forgotten here."""
        if self._files:
            arrays = [
                np.memmap(file, dtype, "r+", shape=(self._examples, *shape))
                for file, (dtype, shape) in zip(self._files, self._types, strict=True)
            ]
        else:
            arrays = [np.empty((self._examples, *shape), dtype) for dtype, shape in self._types]
            end = self._examples
            while self._chunks:  # each is given up once it is copied
                chunk = self._chunks.pop()
                start = end - len(chunk[0])
                for array, part in zip(arrays, chunk, strict=True):
                    array[start:end] = part
                end = start
        return jax.tree.unflatten(self._structure, arrays)

    def _write(self):
        try:
            if self._files is None:
                self._files = [tempfile.TemporaryFile() for _ in self._types]  # noqa: SIM115
            for chunk in self._chunks:
                for file, part in zip(self._files, chunk, strict=True):
                    file.write(np.ascontiguousarray(part).data)
            for file in self._files:
                file.flush()
        except OSError as error:
            size = sum(dtype.itemsize * prod(shape) for dtype, shape in self._types)
            raise UserError(
                f"the outputs, {size} bytes for each example, cannot be kept in "
                f"{tempfile.gettempdir()}: {error.strerror}. Name a folder with more room by the "
                "environment variable TMPDIR"
            ) from error
        self._chunks = []


def _shown(types):
    return ", ".join(f"{dtype} (examples, {', '.join(map(str, shape))})" for dtype, shape in types)
