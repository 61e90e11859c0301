"""Trees of parameters: parting them by path, putting them together, changing their dtype."""

from typing import Any

import jax
import jax.numpy as jnp

from utils import UserError


def split(tree, parts=()):
    """Parts a tree in two of the same structure, None standing where the other has the leaf.

    Args:
        tree: a network's parameters, or a tree like it.
        parts: paths ("generator", "stage1/norm"); none named: everything.

    Returns:
        What lies under the paths and is trained, and the rest; "stats" is always in the rest.
    """

    def chosen(path):
        names = [jax.tree_util.keystr((key,), simple=True) for key in path]
        path = "/".join(names)
        under = any(path == part or path.startswith(part + "/") for part in parts)
        return "stats" not in names and (under or not parts)

    choose = jax.tree_util.tree_map_with_path
    return (
        choose(lambda path, leaf: leaf if chosen(path) else None, tree),
        choose(lambda path, leaf: None if chosen(path) else leaf, tree),
    )


def merge(first, second):
    """Puts together what `split` parted: the first tree's leaf, or where it has None the second's.

    Args:
        first: a tree with None in places.
        second: the same structure; it too may have None in places.
    """
    none = {"is_leaf": lambda leaf: leaf is None}
    return jax.tree.map(lambda a, b: b if a is None else a, first, second, **none)


def subtree(tree, path, where):
    """Returns the part of nested dicts at a path ("generator", "stage1/norm").

    Args:
        tree: nested dicts.
        path: names, with "/" between them.
        where: what asked for it, for the message.

    Raises:
        UserError: there is no such part.
    """
    for name in path.strip("/").split("/"):
        if not isinstance(tree, dict) or name not in tree:
            known = sorted(tree) if isinstance(tree, dict) else []
            raise UserError(f"{where}: no part {path!r}; at {name!r} there are {known}")
        tree = tree[name]
    return tree


def pick(tree, index):
    """Returns what the tree's leaves hold at `index` of their first axis."""
    return jax.tree.map(lambda leaf: leaf[index], tree)


def cast(tree, dtype):
    """Returns the tree with its floating-point leaves in `dtype`, the others as they are."""

    def convert(leaf):
        return leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    return jax.tree.map(convert, tree)


def named_leaves(tree: Any) -> dict[str, Any]:
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
