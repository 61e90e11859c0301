"""Window sizes and padding of convolutions and pooling."""

from jax import lax

from model.modules.core import located


def pair(size):
    """Returns (vertical, horizontal) from one integer for both, or from a pair."""
    vertical, horizontal = (size, size) if isinstance(size, int) else size
    return vertical, horizontal


def pad_widths(function, x, window, stride, padding):
    """Returns the padding as ((top, bottom), (left, right)), in pixels.

    Args:
        function: name of the layer, for the message
        x: (batch, height, width, channels)
        window: (vertical, horizontal), in pixels
        stride: (vertical, horizontal), in pixels
        padding: "SAME" (as many outputs as inputs, divided by the stride and rounded up), "VALID"
            (none), pixels on every side, (vertical, horizontal), or ((top, bottom), (left, right))

    Raises:
        ValueError: the padding is none of these, or the padded image is smaller than the window.
    """
    size = x.shape[1:3]
    if isinstance(padding, str):
        if padding not in ("SAME", "VALID"):
            raise ValueError(
                f"{located(function)}: padding is {padding!r}, "
                'expected "SAME", "VALID" or a number of pixels.'
            )
        widths = lax.padtype_to_pads(size, window, stride, padding)
    else:
        widths = [pair(width) for width in pair(padding)]
    for pixels, reach, (before, after) in zip(size, window, widths, strict=True):
        if before + pixels + after < reach:
            raise ValueError(
                f"{located(function)}: a window of {window} does not fit an image of {size} "
                f"(height, width) with padding {padding}. Is the input channels-last?"
            )
    return tuple(widths)
