"""Networks that `spnb.fit` takes and that a counter of memory and operations may stumble over."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from spnb.maths.networks import ViT, mlp

CLASSES, FEATURES, STEPS, WORDS = 3, 6, 5, 20

Data = tuple[Tensor, Tensor]


class Recurrent(nn.Module):
    """The last output of a recurrent layer."""

    def __init__(self, kind: type[nn.RNNBase], hidden: int = 8, by_value: bool = False) -> None:
        super().__init__()
        self.layer = kind(FEATURES, hidden, batch_first=True)
        self.head = nn.Linear(hidden, CLASSES)
        self.by_value = by_value

    def forward(self, x: Tensor) -> Tensor:
        if self.by_value:
            assert x.abs().max().item() >= 0
        return self.head(self.layer(x)[0][:, -1])


class Branch(nn.Module):
    """What is done depends on a number, if it is to; it is the same in both cases."""

    def __init__(self, hidden: int = 8, by_value: bool = True) -> None:
        super().__init__()
        self.layer, self.head = nn.Linear(FEATURES, hidden), nn.Linear(hidden, CLASSES)
        self.by_value = by_value

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.layer(x)
        if self.by_value and x.abs().max().item() > 1e9:
            hidden = hidden.exp().exp()
        return self.head(hidden.tanh())


class Masked(nn.Module):
    """Some rows, chosen by a boolean mask, take another way."""

    def __init__(self, hidden: int = 8) -> None:
        super().__init__()
        self.layer, self.more = nn.Linear(FEATURES, hidden), nn.Linear(hidden, hidden)
        self.head = nn.Linear(hidden, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        hidden, chosen = self.layer(x), x[:, 0] > 0
        out = torch.zeros_like(hidden)
        out[chosen] = self.more(hidden[chosen]).tanh()
        return self.head(out)


class InPlace(nn.Module):
    """Results are written into a tensor that is made on the way; a buffer is added."""

    def __init__(self, hidden: int = 8) -> None:
        super().__init__()
        self.layer, self.head = nn.Linear(FEATURES, hidden), nn.Linear(hidden, CLASSES)
        self.register_buffer("shift", torch.ones(hidden))

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.layer(x).tanh_() + self.shift
        out = torch.zeros(len(x), hidden.shape[1])
        out[:, ::2] = hidden[:, ::2]
        return self.head(out)


class Words(nn.Module):
    """An embedding, and an encoder in eval mode that leaves out padding."""

    def __init__(self, width: int = 16, layers: int = 1) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(WORDS, width), nn.Linear(width, CLASSES)
        layer = nn.TransformerEncoderLayer(width, 2, 2 * width, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.encoder(self.embedding(x), src_key_padding_mask=x == 0)
        return self.head(hidden[:, 0])


class Embedded(nn.Module):
    """Whole numbers as inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(WORDS, 8), nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.embedding(x).mean(1))


def convolutions() -> nn.Module:
    """Groups, strides, pooling, a norm."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.GroupNorm(2, 8),
        nn.GELU(),
        nn.Conv2d(8, 8, 3, stride=2, groups=2),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(8 * 7 * 7, CLASSES),
    )


def data(name: str, rows: int = 16) -> Data:
    """Inputs that a network takes, and classes."""
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(CLASSES, (rows,), generator=generator)
    if name in ("words", "embedded"):
        x = torch.randint(1, WORDS, (rows, STEPS + 2), generator=generator)
        x[1:, STEPS:] = 0
        return x, y
    shapes = {"lstm": (STEPS, FEATURES), "gru": (STEPS, FEATURES), "by value": (STEPS, FEATURES)}
    shapes |= {"convolutions": (3, 32, 32), "vit": (3, 32, 32)}
    return torch.randn(rows, *shapes.get(name, (FEATURES,)), generator=generator), y


PLAIN: dict[str, Callable[[], nn.Module]] = {
    "mlp": lambda: mlp((FEATURES, 32, CLASSES)),
    "convolutions": convolutions,
    "vit": lambda: ViT(patch=8, dim=16, depth=1, heads=2, hidden=32, classes=CLASSES),
    "gru": lambda: Recurrent(nn.GRU),
    "in place": InPlace,
    "embedded": Embedded,
    "words": Words,
}
"""Those that fake tensors can run as real ones do."""

BY_VALUE: dict[str, Callable[[], nn.Module]] = {
    "lstm": lambda: Recurrent(nn.LSTM),
    "by value": lambda: Recurrent(nn.LSTM, by_value=True),
    "branch": Branch,
    "masked": Masked,
}
"""Those that have to be run."""

NETS = PLAIN | BY_VALUE
