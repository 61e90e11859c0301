"""The configs of the examples, with small networks on small data."""

import json

from tests.helpers.project import BATCH_SIZE, ROOT

EXAMPLES = ROOT / "examples"
GAN = {"noise_size": 8, "generator_features": 8, "discriminator_features": 2}
CONTEXT = 16
TEXT = {"context": CONTEXT, "features": 8, "depth": 1, "heads": 2}


def gan_config(mnist, save_dir):
    """The config of examples/gan, with tiny networks on the small data."""
    values = on_digits("gan/config.json", mnist, save_dir)
    values["model"]["args"] |= GAN
    return values


def parts_config(name, mnist, save_dir):
    """The config of examples/vae or examples/contrastive, with a tiny network on the small data."""
    values = on_digits(f"{name}/config.json", mnist, save_dir)
    values["model"]["args"] = {"features": 8}
    return values


def library_config(name, mnist, save_dir):
    """A config of examples/libraries, on the small data."""
    return on_digits(f"libraries/{name}.json", mnist, save_dir)


def text_config(text, save_dir):
    """The config of examples/text, with a tiny network and a small text."""
    values = _read("text/config.json", save_dir)
    values["model"]["args"] = TEXT
    for split in ("train", "test"):
        args = values["data_loader"][split]["args"]
        args["dataset"]["args"] |= {"path": str(text), "context": CONTEXT, "stride": CONTEXT // 2}
    values["training"] |= {"epochs": 2, "log_every": "3 steps"}
    return values


def tabular_config(save_dir):
    """The config of examples/tabular as it is: a run takes seconds."""
    return _read("tabular/config.json", save_dir)


def multi_label_config(save_dir):
    """The config of examples/multi_label, with few pages and a tiny network."""
    values = _read("multi_label/config.json", save_dir)
    values["model"]["args"]["feat_dims"] = [4, 8]
    for split in ("train", "test"):
        args = values["data_loader"][split]["args"]
        args["dataset"]["args"] |= {"count": 200}
        args["batch_size"] = BATCH_SIZE
    values["training"] |= {"epochs": 2, "save_every": "1 epoch"}
    return values


def folds_config(save_dir):
    """The config of examples/folds, with two epochs."""
    values = _read("folds/config.json", save_dir)
    values["training"] |= {"epochs": 2, "save_every": "1 epoch"}
    return values


def segmentation_config(save_dir):
    """The config of examples/segmentation, with a tiny network and a few pictures."""
    values = _read("segmentation/config.json", save_dir)
    values["model"]["args"] = {"feat_dims": [4, 8]}
    for split in ("train", "test"):
        args = values["data_loader"][split]["args"]
        args["dataset"]["args"] |= {"count": 50, "size": 16}
        args["batch_size"] = 20
    values["training"] |= {"epochs": 2, "log_every": "3 steps"}
    return values


def detection_config(mnist, save_dir):
    """The config of examples/detection, with a tiny network on the small data."""
    values = on_digits("detection/config.json", mnist, save_dir)
    values["model"]["args"] = {"feat_dims": [4, 4, 4]}
    return values


def mixup_config(mnist, save_dir):
    """The config of examples/mixup, on the small data."""
    return on_digits("mixup/config.json", mnist, save_dir)


def on_digits(name, mnist, save_dir):
    """The config of an example of MNIST, on the small data."""
    values = _read(name, save_dir)
    for split in ("train", "test"):
        args = values["data_loader"][split]["args"]
        args["dataset"]["args"] = {"root": str(mnist), "split": split}
        args["batch_size"] = BATCH_SIZE
    values["training"] |= {"epochs": 2, "log_every": "3 steps"}
    return values


def _read(name, save_dir):
    values = json.loads((EXAMPLES / name).read_text())
    values["training"]["save_dir"] = str(save_dir)
    return values
