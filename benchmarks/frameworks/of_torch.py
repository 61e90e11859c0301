"""The networks of benchmarks/peers.py in PyTorch, trained the way its users do.

    python of_torch.py NETWORK dataloader|byhand

dataloader: eager, with a DataLoader and the loss read at each step, as pytorch-template does;
the pictures are normalised before, not one by one. byhand: torch.compile, batches indexed out of
tensors, the loss read at the end of the epoch.
"""

import sys
import time
from itertools import pairwise

import torch
from common import BATCH, LEARNING_RATE, WEIGHT_DECAY, serve, training_set
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
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)  # faster here by a tenth


def lenet():
    """The network of pytorch-template."""
    return nn.Sequential(
        nn.Conv2d(1, 10, 5), nn.MaxPool2d(2), nn.ReLU(),
        nn.Conv2d(10, 20, 5), nn.Dropout2d(), nn.MaxPool2d(2), nn.ReLU(),
        nn.Flatten(), nn.Linear(320, 50), nn.ReLU(), nn.Dropout(), nn.Linear(50, 10),
    )  # fmt: skip


class TransformerBlock(nn.Module):
    """The block of the ViT; attention by PyTorch's fused function."""

    def __init__(self, features, heads):
        super().__init__()
        self.heads = heads
        self.attention_norm, self.norm = nn.LayerNorm(features), nn.LayerNorm(features)
        self.inputs, self.outputs = nn.Linear(features, 3 * features), nn.Linear(features, features)
        self.expand = nn.Linear(features, 4 * features)
        self.project = nn.Linear(4 * features, features)

    def forward(self, x):
        experiment = self.inputs(self.attention_norm(x)).chunk(3, -1)
        experiment = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in experiment)
        mixed = functional.scaled_dot_product_attention(*experiment)
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


def main():
    """Serves epochs of a network in one of the two ways."""
    name, way = sys.argv[1:]
    torch.manual_seed(0)
    network = {"sample": sample, "lenet": lenet, "vit": Vit, "mlp": mlp}[name]()
    optimizer = torch.optim.AdamW(network.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    images, labels = (torch.from_numpy(array) for array in training_set())
    images = images[:, None]
    loader = DataLoader(TensorDataset(images, labels), batch_size=BATCH, shuffle=True)
    compiled = torch.compile(network)
    network.train()

    def step(function, inputs, targets):
        optimizer.zero_grad()
        loss = functional.cross_entropy(function(inputs), targets)
        loss.backward()
        optimizer.step()
        return loss.detach()

    def dataloader():
        total = sum(step(network, *batch).item() * len(batch[0]) for batch in loader)
        return total / len(labels)

    def byhand():
        total = torch.zeros(())
        for taken in torch.randperm(len(labels)).split(BATCH):
            total += step(compiled, images[taken], labels[taken]) * len(taken)
        return total.item() / len(labels)

    run = {"dataloader": dataloader, "byhand": byhand}[way]

    def epoch():
        began = time.perf_counter()
        loss = run()
        return time.perf_counter() - began, loss

    serve(sum(parameter.numel() for parameter in network.parameters()), epoch)


if __name__ == "__main__":
    main()
