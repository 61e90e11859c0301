"""The networks of benchmarks/peers.py in PyTorch, trained the way its users do.

    python of_torch.py NETWORK dataloader|compiled [--device cpu] [--dtype float32]

dataloader: eager, with a DataLoader and the loss read at each step, as pytorch-template does;
the pictures are normalised before, not one by one. compiled: torch.compile, batches indexed out of
tensors on the device, the loss read at the end of the epoch. On a GPU as PyTorch's tuning guide
advises: CUDA graphs (mode "reduce-overhead"), a fused optimizer, TF32, autocast, channels last for
convolutions, pinned memory.
"""

import os
from functools import partial
from itertools import pairwise

import common
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of (batch, channels, height, width)."""

    def forward(self, x):
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvNextBlock(nn.Module):
    """The block of the sample network."""

    def __init__(self, features):
        super().__init__()
        self.mix = nn.Sequential(
            nn.Conv2d(features, features, 7, padding=3, groups=features, bias=False),
            ChannelNorm(features),
            nn.Conv2d(features, 2 * features, 1, bias=False),
            nn.GELU("tanh"),
            nn.Conv2d(2 * features, features, 1, bias=False),
        )

    def forward(self, x):
        return x + self.mix(x)


def sample(features=(8, 16, 32)):
    """The sample network."""
    layers = [nn.Conv2d(1, features[0], 4, 4, bias=False), ChannelNorm(features[0])]
    layers.append(ConvNextBlock(features[0]))
    for before, after in pairwise(features):
        layers += [ChannelNorm(before), nn.Conv2d(before, after, 2, 2, bias=False)]
        layers.append(ConvNextBlock(after))
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LayerNorm(features[-1])]
    layers += [nn.Linear(features[-1], 64), nn.GELU("tanh"), nn.Linear(64, 10)]
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)  # faster by a tenth


def lenet():
    """The network of pytorch-template."""
    return nn.Sequential(
        nn.Conv2d(1, 10, 5), nn.MaxPool2d(2), nn.ReLU(),
        nn.Conv2d(10, 20, 5), nn.Dropout2d(), nn.MaxPool2d(2), nn.ReLU(),
        nn.Flatten(), nn.Linear(320, 50), nn.ReLU(), nn.Dropout(), nn.Linear(50, 10),
    )  # fmt: skip


class TransformerBlock(nn.Module):
    """The block of the ViT; attention by PyTorch's fused function."""

    def __init__(self, features, heads, causal=False):
        super().__init__()
        self.heads, self.causal = heads, causal
        self.attention_norm, self.norm = nn.LayerNorm(features), nn.LayerNorm(features)
        self.inputs, self.outputs = nn.Linear(features, 3 * features), nn.Linear(features, features)
        self.expand = nn.Linear(features, 4 * features)
        self.project = nn.Linear(4 * features, features)

    def forward(self, x):
        parts = self.inputs(self.attention_norm(x)).chunk(3, -1)
        parts = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        mixed = functional.scaled_dot_product_attention(*parts, is_causal=self.causal)
        x = x + self.outputs(mixed.transpose(1, 2).flatten(2))
        return x + self.project(functional.gelu(self.expand(self.norm(x)), approximate="tanh"))


class Vit(nn.Module):
    """The small Vision Transformer of model/model.py."""

    def __init__(self, features=64, heads=4, depth=4, patch=7):
        super().__init__()
        self.patches = nn.Conv2d(1, features, patch, patch)
        self.position = nn.Parameter(0.02 * torch.randn((28 // patch) ** 2, features))
        self.blocks = nn.Sequential(*(TransformerBlock(features, heads) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(features), nn.Linear(features, 10)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2) + self.position
        return self.head(self.norm(self.blocks(x)).mean(1))


def mlp():
    """The fully connected network of model/model.py."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(784, 128), nn.GELU("tanh"), nn.Linear(128, 64), nn.GELU("tanh"),
        nn.Linear(64, 10),
    )  # fmt: skip


class BasicBlock(nn.Module):
    """The block of ResNet-18, as in torchvision."""

    def __init__(self, before, features, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(before, features, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(features, features, 3, 1, 1, bias=False)
        self.norm1, self.norm2 = nn.BatchNorm2d(features), nn.BatchNorm2d(features)
        self.shortcut = nn.Identity()
        if stride > 1:
            cut = nn.Conv2d(before, features, 1, stride, bias=False)
            self.shortcut = nn.Sequential(cut, nn.BatchNorm2d(features))

    def forward(self, x):
        y = functional.relu(self.norm1(self.conv1(x)))
        return functional.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


def resnet18():
    """ResNet-18 for pictures of 32 x 32."""
    layers = [nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    for before, features, stride in ((64, 64, 1), (64, 128, 2), (128, 256, 2), (256, 512, 2)):
        layers += [BasicBlock(before, features, stride), BasicBlock(features, features, 1)]
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10)]
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)


class Gpt(nn.Module):
    """The network of examples/text, of an ordinary size."""

    def __init__(self, features=384, heads=6, depth=6):
        super().__init__()
        self.characters = nn.Embedding(common.CODES, features)
        self.position = nn.Parameter(0.02 * torch.randn(common.CONTEXT, features))
        blocks = (TransformerBlock(features, heads, causal=True) for _ in range(depth))
        self.blocks = nn.Sequential(*blocks)
        self.norm, self.head = nn.LayerNorm(features), nn.Linear(features, common.CODES)

    def forward(self, x):
        x = self.characters(x) + self.position
        return self.head(self.norm(self.blocks(x)))


NETWORKS = {
    "sample": sample, "lenet": lenet, "vit": Vit, "mlp": mlp, "resnet18": resnet18, "gpt": Gpt,
}  # fmt: skip


def main(options):
    """Serves epochs of a network in one of the two ways."""
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("high")  # TF32, which is JAX's default
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    on_gpu, half = options.device == "cuda", options.dtype == "bfloat16"
    network = NETWORKS[options.network]().to(options.device).train()
    settings = {"weight_decay": common.WEIGHT_DECAY, "fused": on_gpu}
    optimizer = torch.optim.AdamW(network.parameters(), common.LEARNING_RATE, **settings)
    inputs, targets = map(torch.from_numpy, common.training_set(options))
    if inputs.is_floating_point():
        inputs = inputs.movedim(-1, 1)

    def loss_of(inputs, targets):
        with torch.autocast(options.device, torch.bfloat16, enabled=half):
            logits = network(inputs)
        return functional.cross_entropy(logits.float().flatten(0, -2), targets.flatten())

    def step(function, inputs, targets):
        optimizer.zero_grad()
        loss = function(inputs, targets)
        loss.backward()
        optimizer.step()
        return loss.detach() * len(targets)

    if options.way == "dataloader":
        epoch = by_dataloader(partial(step, loss_of), inputs, targets, options)
    else:
        mode = "reduce-overhead" if on_gpu else None
        compiled = torch.compile(loss_of, mode=mode, dynamic=False)
        inputs, targets = inputs.to(options.device), targets.to(options.device)
        epoch = by_hand(partial(step, compiled), inputs, targets, options)
    common.serve(sum(parameter.numel() for parameter in network.parameters()), epoch)


def by_dataloader(step, inputs, targets, options):
    """Returns an epoch as in pytorch-template."""
    data = TensorDataset(inputs, targets)
    on_gpu = options.device == "cuda"
    loader = DataLoader(data, options.batch, shuffle=True, pin_memory=on_gpu)

    def epoch():
        total = 0.0
        for batch in loader:
            total += step(*(one.to(options.device, non_blocking=True) for one in batch)).item()
        return total / len(targets)

    return epoch


def by_hand(step, inputs, targets, options):
    """Returns an epoch that reads the loss only at its end."""

    def epoch():
        total = torch.zeros((), device=options.device)
        for taken in torch.randperm(len(targets), device=options.device).split(options.batch):
            total += step(inputs[taken], targets[taken])
        return total.item() / len(targets)

    return epoch


if __name__ == "__main__":
    main(common.parse_options(("dataloader", "compiled")))
