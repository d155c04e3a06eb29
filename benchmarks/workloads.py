"""What is measured: two networks with their batches, the same for everybody in a comparison."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from spnb.maths.networks import ViT, mlp

SEED = 0
INIT_SCALE = 0.02
LEARNING_RATE = 1e-3


@dataclass(frozen=True)
class Workload:
    """A network and one batch of random inputs: time does not depend on what they show.

    Attributes:
        name: short name.
        network: makes the plain network, always with the same weights.
        input_shape: of one item.
        batch_size: B.
        num_data: N, the size of the data set that the batch is taken to come from.
        classes: number of classes.
    """

    name: str
    network: Callable[[], nn.Module]
    input_shape: tuple[int, ...]
    batch_size: int
    num_data: int
    classes: int = 10

    def net(self) -> nn.Module:
        """The plain network, float32."""
        torch.manual_seed(SEED)
        return self.network()

    def batch(self) -> tuple[Tensor, Tensor]:
        """Inputs ``[B, ...]`` and classes ``[B]``."""
        generator = torch.Generator().manual_seed(SEED)
        x = torch.randn(self.batch_size, *self.input_shape, generator=generator)
        y = torch.randint(self.classes, (self.batch_size,), generator=generator)
        return x, y


MLP = Workload(
    "MLP 64-256-256-10",
    lambda: mlp((64, 256, 256, 10), nn.ReLU),
    (64,),
    batch_size=128,
    num_data=10_000,
)
VIT = Workload(
    "ViT (patch 4, dim 96, depth 4, heads 3, MLP 384)",
    ViT,
    (3, 32, 32),
    batch_size=32,
    num_data=10_000,
)
CNN = Workload(
    "CNN (32 and 64 channels of 3×3, 10 classes)",
    lambda: nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(4),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64 * 16, 10),
    ),
    (3, 32, 32),
    batch_size=64,
    num_data=10_000,
)
WORKLOADS = {"mlp": MLP, "vit": VIT, "cnn": CNN}
