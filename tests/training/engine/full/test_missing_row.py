"""An integer that a table has no row for is named, with the size of the table, and ends the run."""

import numpy as np
import pytest

from model.modules import Layers, embedding, linear

ROWS = 50


class Tokens:
    """Twelve sequences of three tokens and their class; one token has no row, in one split.

    Args:
        bad: the token, or None.
    """

    def __init__(self, bad=None):
        self._tokens = np.random.default_rng(0).integers(0, ROWS, (12, 3)).astype(np.int32)
        if bad is not None:
            self._tokens[7, 1] = bad

    def __len__(self):
        return 12

    def __getitem__(self, index):
        return self._tokens[index], np.int32(index % 2)


def network(x, *, params=None, key=None, train=False):
    """The mean of the tokens' rows."""
    layer = Layers(params, key, train)
    return layer("head", linear, layer("e", embedding, x, ROWS, 4).mean(1), 2), layer.params


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("token", [57, -1])
def test_a_token_without_a_row_is_named_in_training_and_in_the_test_set(
    run, config, capsys, split, token
):
    def loader(bad=None):
        dataset = {"name": f"{__name__}:Tokens", "args": {} if bad is None else {"bad": bad}}
        return {"name": "DataLoader", "args": {"dataset": dataset, "batch_size": 4}}

    config["model"] = {"name": f"{__name__}:network"}
    config["data_loader"] = {"train": loader(), "test": loader()}
    config["data_loader"][split] = loader(token)
    code, _ = run()
    assert code == 1
    out, error = capsys.readouterr()
    assert f"the inputs of example 7 have {token} at [1], and the table of layer e has 50" in error
    assert ("the test split: " in error) == (split == "test")
    assert "Finished!" not in out
