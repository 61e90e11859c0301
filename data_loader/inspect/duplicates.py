"""Finds what is in the data twice: equal inputs, and image files that look the same."""

from collections import defaultdict
from itertools import combinations
from typing import NamedTuple

import numpy as np

BITS, BANDS = 64, 5  # of a perceptual hash; two with fewer different bits share a band
FLAT = 6  # set bits, below which a hash is that of an image without structure
CLOSE = 6.0  # grey levels, the mean difference of two thumbnails that look the same
CROWD = 200  # images with the same band, from which on it says nothing


class Twins(NamedTuple):
    """Examples with the same inputs, as (split, index)."""

    members: list
    labels: set  # the labels they have


def equal_inputs(splits: list) -> list[Twins]:
    """Returns the groups of examples whose inputs are equal, bit for bit.

    Args:
        splits: what `read_split` returned. Two that read the same data set at the same index have
            that example twice as well.
    """
    groups = defaultdict(list)
    for split in splits:
        for index, (digest, label, _) in split.rows.items():
            groups[digest].append((split.name, index, label))
    return [
        Twins([one[:2] for one in group], {one[2] for one in group} - {None})
        for group in groups.values()
        if len(group) > 1
    ]


def lookalikes(splits: list) -> list[tuple]:
    """Returns pairs ((split, index), (split, index)) of images of two splits that look the same.

    A perceptual hash proposes them (the difference hash of the library imagehash: two that differ
    in less than five bits), thumbnails decide. Images whose inputs are equal are left out.
    """
    known = [
        (split.name, index, digest, *near)
        for split in splits
        for index, (digest, _, near) in split.rows.items()
        if near is not None and FLAT <= near[0].bit_count() <= BITS - FLAT
    ]
    hashes = np.array([one[3] for one in known], np.uint64)
    candidates = set()
    for band in np.array_split(np.arange(BITS), BANDS):
        mask = sum(1 << int(bit) for bit in band)
        groups = defaultdict(list)
        for position, key in enumerate((hashes & np.uint64(mask)).tolist()):
            groups[key].append(position)
        crowds = (group for group in groups.values() if 1 < len(group) <= CROWD)
        candidates |= {pair for group in crowds for pair in combinations(group, 2)}
    pairs = [(known[a], known[b]) for a, b in sorted(candidates)]
    return [(one[:2], other[:2]) for one, other in pairs if _look_the_same(one, other)]


def _look_the_same(one, other):
    if one[0] == other[0] or one[2] == other[2]:  # in one split, or equal
        return False
    if (one[3] ^ other[3]).bit_count() >= BANDS:
        return False
    return np.abs(one[4].astype(float) - other[4]).mean() <= CLOSE
