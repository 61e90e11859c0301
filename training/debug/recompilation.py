"""Reports when update or evaluate is compiled again, which takes as long as the first time."""

import logging

import jax

LOG = logging.getLogger("main")


def watch_compilations(experiment):
    """Returns the Experiment with its update and evaluate watched, and a function `mark_warm`.

    Call `mark_warm()` after the first epoch: from then on a compilation is warned of. Until then
    those for another shape of batches are reported.
    """
    update = WatchedFunction("update", experiment.update)
    evaluate = WatchedFunction("evaluate", experiment.evaluate)

    def mark_warm():
        update.warm = evaluate.warm = True

    return experiment._replace(update=update, evaluate=evaluate), mark_warm


class WatchedFunction:
    """Calls a jitted function, and warns of what changed in its arguments if it is compiled again.

    It warns only once it is `warm`: called with every shape that it should meet. Before, it reports
    batches of another shape, such as of sequences padded to the longest of each batch.
    """

    def __init__(self, name, function):
        self._name, self._function = name, function
        self._compiled_for, self.warm = [], False  # the types of the arguments at each compilation

    def __call__(self, *args):
        """Returns what the function returns."""
        before = self._function._cache_size()
        result = self._function(*args)
        if self._function._cache_size() > before:
            self._note_compilation(_types(args))
        return result

    def _note_compilation(self, types):
        if self._compiled_for:
            changed = min((_changes(types, earlier) for earlier in self._compiled_for), key=len)
            if self.warm:
                same = "its arguments are the same, but JAX's settings are not"
                LOG.warning("%s was compiled once more: %s", self._name, "; ".join(changed) or same)
            elif changed and all(one.startswith("batch") for one in changed):
                LOG.info(
                    "%s was compiled for another shape of batches, now for %d: %s. Lengths rounded "
                    "up, as to multiples of 8, are fewer: docs/data.md",
                    self._name, len(self._compiled_for) + 1, changed[0],
                )  # fmt: skip
        self._compiled_for.append(types)


def _types(args):
    """Returns {place: type} of the arrays in (state, batch), also of donated ones."""
    names = ("state", "batch")
    return {
        names[path[0].idx] + jax.tree_util.keystr(path[1:]): str(jax.typeof(leaf))
        for path, leaf in jax.tree_util.tree_leaves_with_path(args)
    }


def _changes(now, before):
    """Returns a line for each difference between two results of `_types`."""
    return [
        f"{place} is {now.get(place, 'gone')}, it was {before.get(place, 'not there')}"
        for place in before | now
        if now.get(place) != before.get(place)
    ]
