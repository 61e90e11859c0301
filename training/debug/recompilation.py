"""A warning where update or evaluate is compiled again, which takes as long as the first time."""

import logging

import jax

LOG = logging.getLogger("main")


def watched(experiment):
    """Returns the Parts, update and evaluate watched, and what to call after the first epoch."""
    update = Watched("update", experiment.update)
    evaluate = Watched("evaluate", experiment.evaluate)

    def mark_warm():
        update.settled = evaluate.settled = True

    return experiment._replace(update=update, evaluate=evaluate), mark_warm


class Watched:
    """Calls a jitted function as it is, and warns of what changed where that compiles it again.

    Args:
        name: the function's name in messages.
        function: the jitted function.

    Attributes:
        settled: whether it has met everything it should have to; until then it does not warn.
    """

    def __init__(self, name, function):
        self._name, self._function = name, function
        self._known, self.settled = [], False

    def __call__(self, *args):
        """Returns what the function returns."""
        before = self._function._cache_size()
        result = self._function(*args)
        if self._function._cache_size() > before:
            self._note(_types(args))
        return result

    def _note(self, types):
        if self.settled and self._known:
            changed = min((_changes(types, known) for known in self._known), key=len)
            reason = (
                "; ".join(changed) or "its arguments are what they were, but not JAX's settings"
            )
            LOG.warning("%s was compiled once more: %s", self._name, reason)
        self._known.append(types)


def _types(args):
    """{place: type} of the arrays in arguments; those of donated ones can be told as well."""
    names = ("state", "batch")
    return {
        names[path[0].idx] + jax.tree_util.keystr(path[1:]): str(jax.typeof(leaf))
        for path, leaf in jax.tree_util.tree_leaves_with_path(args)
    }


def _changes(now, before):
    """What differs between two results of `_types`, in words."""
    return [
        f"{place} is {now.get(place, 'gone')}, it was {before.get(place, 'not there')}"
        for place in before | now
        if now.get(place) != before.get(place)
    ]
