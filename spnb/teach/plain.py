"""A plain network, trained as usual: what every Bayesian one has to be held against.

Same batches in the same order, same optimiser and schedule as `spnb.fit` with the same numbers;
only the weights are numbers instead of distributions.
"""

from __future__ import annotations

import copy
from typing import Literal

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from spnb.maths.augmentations import Augmentation
from spnb.maths.likelihoods import Likelihood
from spnb.parallel import progress
from spnb.parallel.keyed import Key
from spnb.run.optimizer import scheduler
from spnb.run.place import place_of
from spnb.run.training import order


def train_plain(
    net: nn.Module,
    likelihood: Likelihood,
    data: tuple[Tensor, Tensor],
    *,
    batch_size: int = 64,
    epochs: int = 1,
    learning_rate: float = 1e-3,
    weight_decay: float = 0.0,
    schedule: Literal["constant", "cosine"] = "constant",
    warmup_steps: float = 0,
    augment: Augmentation | None = None,
    seed: int = 0,
) -> nn.Module:
    """Minimise the mean negative log-likelihood, by AdamW, on the device where `fit` would compute.

    Args:
        net: where to start from; it is copied.
        likelihood: turns the outputs into a distribution of the targets.
        data: inputs ``[N, ...]`` and targets ``[N, ...]``.
        batch_size: rows a step.
        epochs: passes over the data.
        learning_rate: Adam's.
        weight_decay: decoupled decay.
        schedule: as for `spnb.fit`.
        warmup_steps: as for `spnb.fit`.
        augment: as for `spnb.fit`.
        seed: names the order of the data, and its augmentation.

    Returns:
        The trained copy, in evaluation mode.
    """
    place = place_of(net)
    net = copy.deepcopy(net).to(place).train()
    x, y = data
    optimizer = AdamW(net.parameters(), learning_rate, weight_decay=weight_decay)
    total = epochs * -(-len(x) // batch_size)
    rate = scheduler(optimizer, schedule, warmup_steps, total)
    step = 0
    for epoch in range(epochs):
        for rows in order(len(x), batch_size, seed, epoch):
            batch, targets = x[rows].to(place), y[rows].to(place)
            if augment is not None:
                key = Key(seed).fold("augment", step, "shared")
                batch = augment(batch, key.generator(place))
            optimizer.zero_grad()
            loss = likelihood.total_nll(net(batch).unsqueeze(0), targets) / len(rows)
            loss.backward()
            optimizer.step()
            rate.step()
            step += 1
            progress.report(step, total, samples=1, loss=loss.item())
    return net.eval()


def predict_plain(net: nn.Module, x: Tensor, batch_size: int = 1024) -> Tensor:
    """Predictions ``[1, N, ...]``, like those of one sample.

    Args:
        net: the network.
        x: inputs ``[N, ...]``.
        batch_size: rows evaluated at once.
    """
    place = next(net.parameters()).device
    with torch.no_grad():
        return torch.cat([net(batch.to(place)) for batch in x.split(batch_size)]).unsqueeze(0)
