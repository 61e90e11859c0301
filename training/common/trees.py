"""Trees of parameters: splitting them by path, merging them, naming and casting their leaves."""

import functools
import re
from typing import Any

import jax
import jax.numpy as jnp

from utils import UserError, nearest


def fits(name, paths, below=False):
    """Whether the name of a part is that of one of the paths, which may be globs.

    In a glob, * stands for any letters of one name ("block*/norm"), ** for any names in between
    ("**/norm"). A path may be written with dots as well: "stage1.norm" is "stage1/norm".

    Args:
        name: of a part, an array or a layer: "stage1/norm/scale".
        paths: of which one has to fit.
        below: whether names within the part at a path fit, too.
    """
    name = name.replace(".", "/")
    return any(_pattern(path, below).fullmatch(name) for path in paths)


@functools.lru_cache
def _pattern(path, below):
    glob = re.escape(path.replace(".", "/").strip("/"))
    glob = glob.replace(r"\*\*/", "(?:.*/)?").replace(r"\*\*", ".*").replace(r"\*", "[^/]*")
    return re.compile(glob + ("(?:/.*)?" if below else ""))


def split(tree, paths=()):
    """Splits a tree into two of the same structure, with None where the other has the leaf.

    Args:
        tree: a network's parameters, or a tree like it.
        paths: of the parts to select, see `fits`; empty: everything.

    Returns:
        The leaves under the paths that are trained, and the rest; "stats" is always in the rest.
    """

    return divide(
        tree,
        lambda name: (
            "stats" not in name.split("/") and (not paths or fits(name, paths, below=True))
        ),
    )


def divide(tree, selected):
    """Splits a tree as `split` does: the leaves whose name `selected` accepts, and the rest."""

    def chosen(path):
        return selected(jax.tree_util.keystr(path, simple=True, separator="/"))

    map_with_path = jax.tree_util.tree_map_with_path
    return (
        map_with_path(lambda path, leaf: leaf if chosen(path) else None, tree),
        map_with_path(lambda path, leaf: None if chosen(path) else leaf, tree),
    )


def merge(first, second):
    """Merges what `split` returned: the first tree's leaves, the second's where it has None."""
    none = {"is_leaf": lambda leaf: leaf is None}
    return jax.tree.map(lambda a, b: b if a is None else a, first, second, **none)


def check_part(tree, path, where):
    """Refuses a path ("generator", "stage1/norm") under which a tree has nothing to train."""
    expect_part(path, named_leaves(split(tree)[0]), where, "that can be trained")


def expect_part(path, names, where, what="in the network", exact=False):
    """Refuses a path, or glob, that fits none of the names, nor with `below` a part they are in."""
    if any(fits(name, (path,), below=not exact) for name in names):
        return
    parts = {name[:end] for name in names for end in _ends(name)}
    raise UserError(
        f"{where}: no part {path!r} {what}{nearest(path, sorted(parts))}; the "
        f"network's parts are {', '.join(dict.fromkeys(name.partition('/')[0] for name in names))}"
    )


def subtree(tree, path, where):
    """Returns the part of nested dicts at a path ("generator", "stage1/norm").

    `where` says what asked for it, for the message of the UserError where there is no such part.
    """
    for name in path.strip("/").split("/"):
        if not isinstance(tree, dict) or name not in tree:
            known = sorted(tree) if isinstance(tree, dict) else []
            raise UserError(f"{where}: no part {path!r}; at {name!r} there are {known}")
        tree = tree[name]
    return tree


def pick(tree, index):
    """Returns the tree with each leaf's entry `index` of its first axis."""
    return jax.tree.map(lambda leaf: leaf[index], tree)


def cast(tree, dtype):
    """Returns the tree with its floating-point leaves in `dtype`, the others unchanged."""

    def convert(leaf):
        return leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    return jax.tree.map(convert, tree)


def named_leaves(tree: Any) -> dict[str, Any]:
    """Returns the leaves by name, which is their path: "params/stem/kernel".

    Raises:
        ValueError: two leaves have one name, or a leaf is a typed key.
    """
    named = {}
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if name in named or name == "__metadata__":
            raise ValueError(f"{name}: the name is taken, rename that array of the state")
        if isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            raise ValueError(f"{name} is a typed key, keep jax.random.key_data of it in the state")
        named[name] = leaf
    return named


def _ends(name):
    """Where the parts of a path end: after each of its names."""
    return [index for index, letter in enumerate(name + "/") if letter == "/"]
