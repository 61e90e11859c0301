"""Lookups and scatters of JAX in terms of plain ones, which both formats have.

For the functions' arguments and results see `jax_substitutes.py`.
"""

import jax.numpy as jnp
from jax import lax


def gather(equation, operand, indices):
    """A lookup with one index for each example, with slices, or limited to what there is.

    It becomes a plain lookup of elements by all their coordinates, as both formats have it.
    """
    numbers, sizes = equation.params["dimension_numbers"], equation.params["slice_sizes"]
    clips = equation.params["mode"] == lax.GatherScatterMode.CLIP
    mapped, batched = numbers.start_index_map, numbers.operand_batching_dims
    ends = [operand.shape[axis] if axis in (*mapped, *batched) else size
            for axis, size in enumerate(sizes)]  # fmt: skip
    operand = lax.slice(operand, [0] * operand.ndim, ends)
    if (
        tuple(ends) == equation.invars[0].aval.shape
        and not clips
        and not batched
        and all(sizes[axis] == 1 for axis in mapped)
    ):
        return None
    shape, coordinates, wide = _coordinates(
        indices, mapped, dict(zip(batched, numbers.start_indices_batching_dims, strict=True)),
        sizes, operand.shape if clips else None,
    )  # fmt: skip
    outer = indices.ndim - 1
    axes = sorted(coordinates)
    rest = [axis for axis in range(operand.ndim) if axis not in axes]
    found = lax.gather(
        operand,
        jnp.stack([coordinates[axis] for axis in axes], -1),
        lax.GatherDimensionNumbers(
            tuple(range(len(shape), len(shape) + len(rest))), tuple(axes), tuple(axes)
        ),
        tuple(1 if axis in axes else sizes[axis] for axis in range(operand.ndim)),
        mode="promise_in_bounds",
    )
    # Its axes: those of the indices, the slices of indexed axes, and the axes without an index.
    kept = [axis for axis in range(operand.ndim)
            if axis not in (*numbers.collapsed_slice_dims, *batched)]  # fmt: skip
    places = {axis: outer + at for at, axis in enumerate(wide)}
    places |= {axis: len(shape) + at for at, axis in enumerate(rest)}
    ones = [axis for axis in kept if axis not in places]  # slices of one element
    found = lax.expand_dims(found, range(found.ndim, found.ndim + len(ones)))
    places |= {axis: found.ndim - len(ones) + at for at, axis in enumerate(ones)}
    offsets = iter(numbers.offset_dims)
    order, outers = {next(offsets): places[axis] for axis in kept}, iter(range(outer))
    order = [order[at] if at in order else next(outers) for at in range(found.ndim)]
    return [lax.transpose(found, order)]


def scatter(equation, operand, indices, updates):
    """A scatter of whole elements along some axes, each addressed by all its coordinates."""
    numbers = equation.params["dimension_numbers"]
    mapped, batched = numbers.scatter_dims_to_operand_dims, numbers.operand_batching_dims
    clips = equation.params["mode"] == lax.GatherScatterMode.CLIP
    windows = [axis for axis in range(operand.ndim)
               if axis not in (*numbers.inserted_window_dims, *batched)]  # fmt: skip
    sizes = [1] * operand.ndim
    for axis, at in zip(windows, numbers.update_window_dims, strict=True):
        sizes[axis] = updates.shape[at]
    partial = [axis for axis in windows
               if axis not in mapped and sizes[axis] != operand.shape[axis]]  # fmt: skip
    if partial:  # it starts at 0
        zeros = jnp.zeros((*indices.shape[:-1], len(partial)), indices.dtype)
        indices, mapped = jnp.concatenate([indices, zeros], -1), (*mapped, *partial)
    shape, coordinates, wide = _coordinates(
        indices, mapped, dict(zip(batched, numbers.scatter_indices_batching_dims, strict=True)),
        sizes, operand.shape if clips else None,
    )  # fmt: skip
    axes = sorted(coordinates)
    rest = [axis for axis in range(operand.ndim) if axis not in axes]
    # The axes of the updates: those of the indices, slices of indexed axes, whole axes.
    place = dict(zip(windows, numbers.update_window_dims, strict=True))
    outer = [at for at in range(updates.ndim) if at not in numbers.update_window_dims]
    ones = [place[axis] for axis in windows if axis in mapped and axis not in wide]
    order = [*outer, *(place[axis] for axis in (*wide, *rest))]
    updates = lax.squeeze(lax.transpose(updates, [*ones, *order]), range(len(ones)))
    plain = lax.ScatterDimensionNumbers(
        tuple(range(len(shape), len(shape) + len(rest))), tuple(axes), tuple(axes)
    )
    indices = jnp.stack([coordinates[axis] for axis in axes], -1)
    params = {"dimension_numbers": plain, "mode": lax.GatherScatterMode.PROMISE_IN_BOUNDS}
    return [equation.primitive.bind(operand, indices, updates, **equation.params | params)]


def _coordinates(indices, mapped, batched, sizes, limits):
    """The coordinates of each element that slices at indices have.

    Args:
        indices: (..., coordinates of the starts).
        mapped: the axis of each coordinate.
        batched: {axis that belongs to an axis of the indices: that axis}.
        sizes: of the slices, for each axis.
        limits: the shape that slices are moved into; or None.

    Returns:
        (shape of the coordinates, {axis: coordinates}, the axes whose slices have more elements:
        each adds an axis to the shape).
    """
    outer = indices.shape[:-1]
    wide = [axis for axis in mapped if sizes[axis] > 1]
    shape, found = (*outer, *(sizes[axis] for axis in wide)), {}
    for axis, at in batched.items():
        found[axis] = lax.broadcasted_iota(jnp.int32, shape, at)
    for position, axis in enumerate(mapped):
        start = indices[..., position].astype(jnp.int32)
        if limits:
            start = jnp.clip(start, 0, limits[axis] - sizes[axis])
        start = lax.broadcast_in_dim(start, shape, range(len(outer)))
        if axis in wide:
            start += lax.broadcasted_iota(jnp.int32, shape, len(outer) + wide.index(axis))
        found[axis] = start
    return shape, found, wide
