"""Names of another program's arrays, and the paths of the parameters here; see __init__.py."""

import functools
import re
from collections.abc import Mapping
from typing import NamedTuple

LAYOUTS = ("as-is", "transposed")
OPTIONAL = "optional"  # not needed where the network has no such part
# Names of arrays in a layer elsewhere, and what they may be called here.
LEAVES = {
    "weight": ("kernel", "scale", "table"),
    "gamma": ("scale",),
    "beta": ("bias",),
    "embedding": ("table",),
    "embeddings": ("table",),
    "depthwise_kernel": ("kernel",),
    "running_mean": ("stats/mean",),
    "moving_mean": ("stats/mean",),
    "mean": ("stats/mean",),
    "running_var": ("stats/variance",),
    "moving_variance": ("stats/variance",),
    "var": ("stats/variance",),
}
UNUSED = ("num_batches_tracked",)  # a count that BatchNorm of PyTorch keeps


class Target(NamedTuple):
    """Where an array goes."""

    name: str  # its path, with the name of the array as it is elsewhere
    share: tuple[int, int]  # (1, 3): it is the second of three shares of that array
    join: tuple[int, int]  # (1, 3): that array is the second of three shares of it
    layout: str  # one of LAYOUTS, OPTIONAL, or "" where the map does not say


def normal(name: str) -> str:
    """Returns a name with slashes for dots, and `in_proj_weight` as `in_proj/weight`."""
    return re.sub(r"\bin_proj_(weight|bias)$", r"in_proj/\1", name.replace(".", "/"))


def translate(name: str, names: Mapping[str, str | None]) -> list[Target] | None:
    """Returns where an array goes: one Target, or several; [] if it is not needed.

    None where no path of the map fits.
    """
    name = normal(name)
    if name.rpartition("/")[2] in UNUSED:
        return []
    for left, right in names.items():
        joined = left.split("+")
        for index, path in enumerate(joined):
            if found := _pattern(path.strip()).fullmatch(name):
                return _targets(found, right, (index, len(joined)))
    return None


def nest(names: Mapping[str, str | None], there: str, here: str) -> dict[str, str | None]:
    """Returns names for a file in which the parts are below `there`, in a network's part `here`."""

    def below(paths, top):
        return " + ".join(f"{top}/{path.strip()}".strip("/") for path in paths.split("+"))

    nested = {
        below(left, there): None if right is None else below(right, here)
        for left, right in names.items()
    }
    return nested | ({there: here} if there or here else {})


def _targets(found, right, join):
    if right is None:
        return []
    right, _, layout = right.partition(":")
    *letters, rest = found.groups()
    paths = right.split("+")
    return [
        Target(_fill(path, letters, rest), (index, len(paths)), join, layout.strip())
        for index, path in enumerate(paths)
    ]


def _fill(path, letters, rest):
    """Returns a path with the letters that its stars stand for, and what is below it."""
    path, letters = path.strip().replace(".", "/").strip("/"), iter(letters)
    path = re.sub(r"\*", lambda _: next(letters, "*"), path)
    return f"{path}/{rest.lstrip('/')}".strip("/")


@functools.cache
def _pattern(path):
    glob = re.escape(normal(path).strip("/"))
    glob = glob.replace(r"\*\*/", "(?:.*?/)??").replace(r"\*", "([^/]*)")
    return re.compile(glob + "(|/.*)" if glob else "()(.*)")


def leaf_names(name: str) -> list[str]:
    """Returns the paths that an array may have here: its own, and by what layers call theirs."""
    part, _, leaf = name.rpartition("/")
    return [name, *(f"{part}/{other}".lstrip("/") for other in LEAVES.get(leaf, ())), part]
