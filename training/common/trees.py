"""Trees of parameters: splitting them by path, merging them, naming and casting their leaves."""

from typing import Any

import jax
import jax.numpy as jnp

from utils import UserError, nearest


def split(tree, paths=()):
    """Splits a tree into two of the same structure, with None where the other has the leaf.

    Args:
        tree: a network's parameters, or a tree like it.
        paths: of the parts to select ("generator", "stage1/norm"); empty: everything.

    Returns:
        The leaves under the paths that are trained, and the rest; "stats" is always in the rest.
    """

    def selected(path):
        names = [jax.tree_util.keystr((key,), simple=True) for key in path]
        name = "/".join(names)
        under = any(name == path or name.startswith(path + "/") for path in paths)
        return "stats" not in names and (under or not paths)

    map_with_path = jax.tree_util.tree_map_with_path
    return (
        map_with_path(lambda path, leaf: leaf if selected(path) else None, tree),
        map_with_path(lambda path, leaf: None if selected(path) else leaf, tree),
    )


def merge(first, second):
    """Merges what `split` returned: the first tree's leaves, the second's where it has None."""
    none = {"is_leaf": lambda leaf: leaf is None}
    return jax.tree.map(lambda a, b: b if a is None else a, first, second, **none)


def check_part(tree, path, where):
    """Refuses a path ("generator", "stage1/norm") under which a tree has nothing to train."""
    if jax.tree.leaves(split(tree, (path,))[0]):
        return
    leaves, _ = jax.tree_util.tree_flatten_with_path(split(tree)[0])
    names = [jax.tree_util.keystr(one, simple=True, separator="/") for one, _ in leaves]
    parts = {name[:end] for name in names for end in _ends(name)}
    raise UserError(
        f"{where}: no part {path!r} that can be trained{nearest(path, sorted(parts))}; the "
        f"network's parts are {', '.join(sorted({name.partition('/')[0] for name in names}))}"
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
