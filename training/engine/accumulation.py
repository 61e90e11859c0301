"""Gradients of a batch in pieces, one after the other, to save memory (`training.accumulate`)."""

from functools import partial

import jax
import jax.numpy as jnp

from training.common.measure import Cells, loss_name
from training.common.trees import merge, split
from utils import UserError


def accumulated(gradients, count):
    """Returns `gradients` that sums over `count` pieces of the batch, one after the other."""

    def of_pieces(params, batch, key, **given):
        of_piece = partial(gradients, mean=False, **given)
        pieces = _pieces(batch, count)
        trained, stats = split(params)

        def body(carry, piece):
            index, stats, *sums = carry
            piece_key = jax.random.fold_in(key, index)
            grads, measured, stats = of_piece(merge(trained, stats), piece, piece_key)
            measured, cells = _apart(measured)
            return (index + 1, stats, *jax.tree.map(jnp.add, sums, [grads, measured])), cells

        first = jax.tree.map(lambda leaf: leaf[0], pieces)
        grads, measured, _ = jax.eval_shape(of_piece, params, first, key)
        shapes = [grads, _apart(measured)[0]]
        sums = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        (_, stats, grads, measured), cells = jax.lax.scan(body, (0, stats, *sums), pieces)
        cells = jax.tree.map(jnp.ravel, cells)
        measured |= {name: (one, measured[name][1]) for name, one in cells.items()}
        for name, of_group in grads.items():  # the weight of all pieces is known only now
            weight = measured[loss_name(name)][1]
            grads[name] = jax.tree.map(lambda g, w=weight: g / w, of_group)
        return grads, measured, stats

    return of_pieces


def _apart(measured):
    """Returns what is measured as numbers to be summed, and {name: Cells} of it, to be joined."""
    cells = {name: total for name, (total, _) in measured.items() if isinstance(total, Cells)}
    numbers = {
        name: (None if name in cells else total, weight)
        for name, (total, weight) in measured.items()
    }
    return numbers, cells


def _pieces(batch, count):
    def cut(leaf):
        if len(leaf) % count:
            raise UserError(f"training.accumulate={count} does not divide a batch of {len(leaf)}")
        # Every count-th row makes a piece: of rows on several devices each has some of each piece.
        return leaf.reshape(len(leaf) // count, count, *leaf.shape[1:]).swapaxes(0, 1)

    return jax.tree.map(cut, batch)
