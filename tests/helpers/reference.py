"""The layers in NumPy and float64, written as simply as possible."""

import numpy as np


def windows(x, size, stride, padding, fill=0.0):
    """Returns the windows of x, (batch, rows, columns, channels, *size)."""
    both = (width if np.iterable(width) else (width, width) for width in padding)
    widths = ((0, 0), *both, (0, 0))
    padded = np.pad(x.astype(np.float64), widths, constant_values=fill)
    every = np.lib.stride_tricks.sliding_window_view(padded, size, (1, 2))
    return every[:, :: stride[0], :: stride[1]]


def conv2d(x, kernel, bias, stride, padding, groups):
    """Convolves x with a kernel of shape (height, width, channels // groups, features)."""
    under = windows(x, kernel.shape[:2], stride, padding)
    groups_of_channels = np.split(under, groups, axis=3)
    groups_of_features = np.split(kernel.astype(np.float64), groups, axis=3)
    results = [
        np.einsum("brcikl,klif->brcf", image, weights)
        for image, weights in zip(groups_of_channels, groups_of_features, strict=True)
    ]
    return np.concatenate(results, -1) + bias


def max_pool(x, size, stride, padding):
    """Returns the maxima, and the gradient of the sum of their squares."""
    under = windows(x, (size, size), stride, (padding, padding), -np.inf)
    maxima = under.max((-1, -2))
    gradient = np.zeros((len(x), x.shape[1] + 2 * padding, x.shape[2] + 2 * padding, x.shape[3]))
    for at in np.ndindex(maxima.shape):
        image, row, column, channel = at
        down, right = np.unravel_index(under[at].argmax(), (size, size))
        place = image, row * stride[0] + down, column * stride[1] + right, channel
        gradient[place] += 2 * maxima[at]
    inside = slice(padding, -padding or None)
    return maxima, gradient[:, inside, inside]


def average_pool(x, size, stride, padding):
    """Returns the mean of the pixels in each window, without padding."""
    under = windows(x, (size, size), stride, (padding, padding), np.nan)
    return np.nanmean(under, (-1, -2))


def standardise(x, axes, epsilon):
    """Normalises to mean 0 and variance 1 over the axes."""
    x = x.astype(np.float64)
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + epsilon)


def softmax(x):
    """Computes the softmax over the last axis."""
    powers = np.exp(x - x.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def attention(x, context, params, heads, mask):
    """Computes multi-head attention; mask: (batch, 1, length, context length), True to attend."""

    def project(name, values):
        y = values @ params[name]["kernel"].astype(np.float64) + params[name]["bias"]
        return y.reshape(*y.shape[:2], heads, -1)

    query, key, value = project("query", x), project("key", context), project("value", context)
    scores = np.einsum("bqhd,bkhd->bhqk", query, key) / np.sqrt(query.shape[-1])
    weights = softmax(np.where(mask, scores, -np.inf))
    y = np.einsum("bhqk,bkhd->bqhd", weights, value).reshape(*x.shape[:2], -1)
    return y @ params["output"]["kernel"].astype(np.float64) + params["output"]["bias"]
