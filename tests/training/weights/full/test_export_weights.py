"""Weights for another program: the way there and back."""

import numpy as np
import safetensors.numpy
import yaml
from hypothesis import given
from hypothesis import strategies as st

from training.config import read_config
from training.weights.export_weights import model_card, to_torch, write_safetensors
from training.weights.mapping import map_arrays, refuse_ambiguous

SIZE = st.integers(1, 5)
LAYERS = {  # {kind: function of sizes that returns (arrays in PyTorch, shapes here)}
    "conv": lambda a, b, c, d: ({"weight": (a, b, c, d)}, {"kernel": (c, d, b, a)}),
    "depthwise": lambda a, b, c, d: ({"weight": (a, 1, c, d)}, {"kernel": (c, d, 1, a)}),
    "linear": lambda a, b, c, d: (
        {"weight": (a, b), "bias": (a,)}, {"kernel": (b, a), "bias": (a,)}
    ),
    "pointwise": lambda a, b, c, d: ({"weight": (a, b, 1, 1)}, {"kernel": (b, a)}),
    "norm": lambda a, b, c, d: ({"weight": (a,), "bias": (a,)}, {"scale": (a,), "bias": (a,)}),
    "batch_norm": lambda a, b, c, d: (
        {"weight": (a,), "bias": (a,), "running_mean": (a,), "running_var": (a,)},
        {"scale": (a,), "bias": (a,), "stats/mean": (a,), "stats/variance": (a,)},
    ),
    "embedding": lambda a, b, c, d: ({"weight": (a, b)}, {"table": (a, b)}),
    "fused": lambda a, b, c, d: (
        {"weight": (3 * a, b), "bias": (3 * a,)},
        {f"{part}/{leaf}": shape for part in "qkv"
         for leaf, shape in (("kernel", (b, a)), ("bias", (a,)))},
    ),
}  # fmt: skip


@given(st.lists(st.tuples(st.sampled_from(sorted(LAYERS)), SIZE, SIZE, SIZE, SIZE), max_size=6))
def test_layers_come_back_as_the_same_bits_whatever_they_are(layers):
    random = np.random.default_rng(0)
    file, template, names = {}, {}, {}
    for number, (kind, *sizes) in enumerate(layers):
        there, here = LAYERS[kind](*sizes)
        file |= {f"net.{number}.{name}": random.standard_normal(shape, np.float32)
                 for name, shape in there.items()}  # fmt: skip
        template |= {f"layer{number}/{name}": np.empty(shape) for name, shape in here.items()}
        part = f"layer{number}"
        names[f"net.{number}"] = f"{part}/q + {part}/k + {part}/v" if kind == "fused" else part
    values, rows = map_arrays(file, template, names, "f")
    refuse_ambiguous(rows, values, "f")
    arrays = {name: np.asarray(value) for name, value in values.items()}
    assert {name: one.shape for name, one in arrays.items()} == {
        name: one.shape for name, one in template.items()
    }
    back = to_torch(arrays, rows)
    assert back.keys() == file.keys()
    for name, array in file.items():
        assert np.array_equal(back[name], array), name


def test_without_a_source_the_names_are_those_of_pytorch_s_layers(tmp_path):
    random = np.random.default_rng(0)
    params = {"stem/kernel": random.standard_normal((3, 3, 4, 8), np.float32)}
    params |= {"norm/scale": np.ones(8, np.float32), "norm/stats/mean": np.ones(8, np.float32)}
    params |= {"words/table": random.standard_normal((9, 4), np.float32)}
    params["position"] = np.ones((5, 4), np.float32)
    write_safetensors(tmp_path / "a", to_torch(params, []))
    written = safetensors.numpy.load_file(tmp_path / "a")
    assert np.array_equal(written.pop("stem.weight"), params["stem/kernel"].transpose(3, 2, 0, 1))
    assert np.array_equal(written.pop("words.weight"), params["words/table"])
    assert written.keys() == {"norm.weight", "norm.running_mean", "position"}


def test_a_model_card_has_the_numbers_that_are_known_and_no_others(config):
    metrics = {"test_accuracy": 0.5, "test_loss": float("nan"), "epoch_train_loss": 1.0}
    text = model_card(read_config(config), {"a": np.ones(3)}, metrics, "mit")
    head = yaml.safe_load(text.split("---")[1])
    assert head["license"] == "mit"
    ((result,),) = [one["results"] for one in head["model-index"]]
    assert result["metrics"] == [{"type": "accuracy", "value": 0.5}]
    assert "3 trained parameters" in text
