"""How far computed outputs are from those of a network that they should be equal to."""

import numpy as np

INFINITE = float("inf")


def differences(computed, wanted, own=None, scale=0.0):
    """Returns {"absolute_error", "error"} of an output; "fault" in words if it is of another kind.

    Args:
        computed: array to be compared, such as an exported file's output.
        wanted: array that the original network returns.
        own: how much the network's own output changes when its inputs change in their last bits,
            for each element; it counts as no error.
        scale: a magnitude of this output, if it has a larger one elsewhere.

    Returns:
        "error" is the largest difference as a share of the largest magnitude, among finite
        elements. Of integers and booleans it is the share of elements that differ. It is infinite
        where one of the two is NaN or infinite and the other is not the same.
    """
    kinds = [f"{one.dtype} {one.shape}" for one in (computed, wanted)]
    if kinds[0] != kinds[1]:
        return _fault(f"{kinds[0]} in place of {kinds[1]}")
    if wanted.dtype.kind in "biu":
        unequal = computed != wanted
        if own is not None:
            unequal &= own == 0
        far = np.abs(np.asarray(computed, np.float64) - np.asarray(wanted, np.float64))
        return {
            "absolute_error": float((far * unequal).max(initial=0)),
            "error": float(unequal.mean()) if unequal.size else 0.0,
        }
    computed, wanted = (np.asarray(one, np.float64) for one in (computed, wanted))
    finite = np.isfinite(wanted)
    other = ~finite & ~((computed == wanted) | (np.isnan(computed) & np.isnan(wanted)))
    other |= finite & ~np.isfinite(computed)
    if other.any():
        first = tuple(np.argwhere(other)[0])
        return _fault(f"{computed[first]:g} in place of {wanted[first]:g}")
    far = np.abs(np.where(finite, computed, 0) - np.where(finite, wanted, 0))
    if own is not None:
        far = np.maximum(far - own, 0)
    worst, scale = float(far.max(initial=0)), max(magnitude(wanted), scale, 1e-30)
    return {"absolute_error": worst, "error": worst / scale}


def magnitude(values):
    """The largest magnitude of an output, among finite elements."""
    values = np.asarray(values, np.float64)
    return float(np.abs(values[np.isfinite(values)]).max(initial=0))


def sensitivity(wanted, nearby):
    """How much outputs change for inputs next to theirs; 0 where either is not finite."""
    changes = []
    for one, other in zip(wanted, nearby, strict=True):
        one, other = (np.asarray(value, np.float64) for value in (one, other))
        both = np.isfinite(one) & np.isfinite(other)
        changes.append(4 * np.abs(np.where(both, one, 0) - np.where(both, other, 0)))
    return changes


def _fault(words):
    return {"absolute_error": INFINITE, "error": INFINITE, "fault": words}
