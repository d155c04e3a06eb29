"""The tour: one Bayesian network, trained four ways that must agree, in about a minute.

    python -m spnb tour
    srun python -m spnb tour --sample -1      # or python -m torch.distributed.run -m spnb tour

Digits, S = 8 weight samples, on one process, with the samples shared by two (sampling
parallelism), with the rows shared by two (data parallelism, DDP) and with both shared by four
(hybrid). Prints a table, writes a figure and the numbers behind it. On the ranks of a launcher it
trains serially and in the one layout that they make.
"""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spnb.maths.models import BayesianModel
from spnb.maths.objectives import ELBO
from spnb.maths.posteriors import MeanField
from spnb.maths.priors import fan_in
from spnb.parallel import devices
from spnb.parallel.collectives import world
from spnb.parallel.layout import Layout
from spnb.parallel.pool import WorkerPool
from spnb.parallel.pool.options import check_whole
from spnb.run.predict import predict, score
from spnb.run.training import Fitted, fit
from spnb.teach import datasets, figures, passport, terminal

LAYOUTS = {
    "serial": Layout(1, 1),
    "sample-parallel": Layout(sample=2, data=1),
    "data-parallel (DDP)": Layout(sample=1, data=2),
    "hybrid": Layout(sample=2, data=2),
}
SEED = 0
#: below 1, a "cold posterior": at 1 mean field pays for certainty with accuracy on so few images
TEMPERATURE = 0.1
SETTINGS: dict[str, Any] = {
    "num_samples": 8,
    "batch_size": 64,
    "learning_rate": 0.01,
    "schedule": "cosine",
    "seed": SEED,
}


@dataclass(frozen=True)
class Row:
    """What one layout did.

    Attributes:
        name: what the layout is called.
        layout: its degrees.
        ranks: number of processes.
        oversubscribed: whether there are more of them than cores or GPUs.
        epochs: passes over the training data.
        accuracy: of the model average on the test images.
        nll: its negative log-likelihood, in nats.
        ece: its expected calibration error.
        step_ms: median wall time of a step, in milliseconds.
        bytes_per_step: bytes that a rank handed to collectives in a step.
        difference: largest absolute difference of a trained parameter from serial.
        loss: mean loss of each epoch.
    """

    name: str
    layout: str
    ranks: int
    oversubscribed: bool
    epochs: int
    accuracy: float
    nll: float
    ece: float
    step_ms: float
    bytes_per_step: float
    difference: float
    loss: list[float]


def network() -> nn.Module:
    """A small perceptron for 8 x 8 digits, always from the same initial weights.

    Smooth, because at the kink of a ReLU a rounding error can switch a unit on or off.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        return nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 10))


def run(folder: Path, epochs: int = 20) -> list[Row]:
    """Train in all four layouts; print the table; write ``tour.png`` and ``tour.json``.

    Args:
        folder: where to write; made if it is not there.
        epochs: passes over the training data.

    Returns:
        One row a layout.

    Raises:
        ValueError: no epoch at all, or a folder that cannot be written to.
        OSError: it can no longer be written to when the work is done.
    """
    check_whole("epochs", epochs, 1)
    terminal.check_writable(folder, "tour.json", "tour.png")
    images = datasets.digits()
    print(f"{passport.passport()}\n\nData: {images!r}. {images.sentence}\n")
    rows: list[Row] = []
    reference: Fitted | None = None
    for name, layout in LAYOUTS.items():
        # One thread a process, the single one too, so that only the layout differs.
        with WorkerPool(layout.size, threads=1) as pool:
            fitted, scores = pool.run(train, layout, epochs)[0]
        reference = reference or fitted
        rows.append(_row(name, layout, epochs, fitted, scores, reference))
    assert reference is not None
    print(table(rows))
    draws = predict(reference.posterior, images.test_x)
    assert draws is not None
    figure = draw(rows, draws.softmax(-1), images.test_y)
    print(f"\n{terminal.write(folder, {'tour.png': figures.png(figure), **_record(rows)})}")
    print("Next: make lab")
    return rows


def run_launched(folder: Path, layout: Layout, epochs: int = 20) -> list[Row]:
    """The same on the ranks of a launcher, of one node or of many: serial, and one layout.

    Args:
        folder: where rank 0 writes ``tour.json``.
        layout: how the ranks share the work.
        epochs: passes over the training data.

    Returns:
        Two rows, on every rank.

    Raises:
        ValueError: as `run`, or a layout that does not fit.
        OSError: as `run`.
    """
    rank, size = world()
    check_whole("epochs", epochs, 1)
    whole = layout.resolve(size)
    whole.check_work(SETTINGS["num_samples"], SETTINGS["batch_size"])
    if rank == 0:
        terminal.check_writable(folder, "tour.json")
    reference, expected = train(None, epochs)
    fitted, scores = train(layout, epochs)
    rows = [
        _row("serial", Layout(), epochs, reference, expected, reference),
        _row(f"{size} ranks", whole, epochs, fitted, scores, reference),
    ]
    if rank == 0:
        print(f"{table(rows)}\n\n{terminal.write(folder, _record(rows))}")
    return rows


def train(layout: Layout | None, epochs: int) -> tuple[Fitted, dict[str, float]]:
    """Train in one layout, on every rank of it: the posterior, and its scores on the test images.

    Args:
        layout: None: this process alone.
        epochs: passes over the training data.
    """
    images = datasets.digits()
    posterior = MeanField(BayesianModel(network(), prior=fan_in(gain=3.0)))
    objective = ELBO(temperature=TEMPERATURE)
    fitted = fit(
        posterior, images.train, objective=objective, layout=layout, epochs=epochs, **SETTINGS
    )
    return fitted, score(fitted.posterior, images.test, layout=layout)


def _record(rows: list[Row]) -> dict[str, bytes]:
    """The file with the numbers, by its name."""
    record = {
        "provenance": passport.provenance(SEED),
        "settings": SETTINGS | {"temperature": TEMPERATURE},
        "rows": [asdict(row) for row in rows],
    }
    return {"tour.json": (json.dumps(record, indent=2) + "\n").encode()}


def _row(
    name: str,
    layout: Layout,
    epochs: int,
    fitted: Fitted,
    scores: dict[str, float],
    reference: Fitted,
) -> Row:
    mine, serial = (dict(f.posterior.named_parameters()) for f in (fitted, reference))
    places = devices.visible_gpus() or devices.usable_cores()
    return Row(
        name=name,
        layout=str(layout),
        ranks=layout.size,
        oversubscribed=layout.size > places,
        epochs=epochs,
        accuracy=scores["accuracy"],
        nll=scores["nll"],
        ece=scores["ece"],
        step_ms=1e3 * statistics.median(record.seconds for record in fitted.history.steps),
        bytes_per_step=fitted.history.bytes_per_step,
        difference=max((mine[key] - serial[key]).abs().max().item() for key in serial),
        loss=[record.loss for record in fitted.history.epochs],
    )


def table(rows: list[Row]) -> str:
    """The rows as text, with a note where there are more processes than places to run them."""
    head = ("", "layout", "epochs", "test acc", "NLL", "ECE", "ms/step", "kB/step", "Δ serial")
    lines = [head] + [
        (
            row.name + (" *" if row.oversubscribed else ""),
            row.layout,
            str(row.epochs),
            f"{row.accuracy:.4f}",
            f"{row.nll:.4f}",
            f"{row.ece:.4f}",
            f"{row.step_ms:.1f}",
            f"{row.bytes_per_step / 1e3:.1f}",
            f"{row.difference:.1e}",
        )
        for row in rows
    ]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    text = "\n".join(
        "  ".join(
            cell.ljust(width) if i < 2 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
    notes = ["Δ serial: largest difference of a trained parameter from serial (float32)."]
    if any(row.oversubscribed for row in rows):
        notes.append("* more processes than cores or GPUs: its step time says nothing of speed.")
    return "\n".join([text, "", *notes])


def draw(rows: list[Row], probabilities: Tensor, targets: Tensor) -> Any:
    """The figure: equal losses, step times, and what the model average is unsure about.

    Args:
        rows: one a layout.
        probabilities: of the test images under each sample, ``[S, N, C]``.
        targets: their classes, ``[N]``.
    """
    figure, (left, middle, right) = figures.new(12.0, 3.6, columns=3)
    for index, row in enumerate(rows):
        left.plot(
            range(1, row.epochs + 1), row.loss, label=row.name,
            **(figures.look(index) | {"markevery": (index, len(rows)), "lw": 4 - index}),
        )  # fmt: skip
    left.set(title="One training run, four layouts", xlabel="epoch", ylabel="loss (nats)")
    left.legend()
    for index, row in enumerate(rows):
        hatch = "//" if row.oversubscribed else ""
        middle.barh(index, row.step_ms, color=figures.COLOURS[index], hatch=hatch, ec="white")
        middle.text(row.step_ms, index, f" {row.step_ms:.1f}", va="center")
    middle.set_yticks(range(len(rows)), [f"{row.name}\n{row.layout}" for row in rows], fontsize=9)
    middle.invert_yaxis()
    middle.margins(x=0.15)
    hatched = " (hatched: oversubscribed)" if any(row.oversubscribed for row in rows) else ""
    middle.set(title="Time of a step", xlabel=f"median, ms{hatched}")
    middle.grid(axis="y", visible=False)
    mean = probabilities.mean(0)
    right_answers = mean.argmax(-1) == targets
    entropy = -(mean * mean.clamp_min(1e-12).log()).sum(-1)
    bins = torch.linspace(0, entropy.max().item() + 1e-6, 20).tolist()
    for index, (chosen, label) in enumerate([(right_answers, "right"), (~right_answers, "wrong")]):
        right.hist(
            entropy[chosen].tolist(), bins, density=True, alpha=0.6, hatch=("", "\\\\")[index],
            color=figures.COLOURS[index], ec="white", label=f"{label} ({int(chosen.sum())})",
        )  # fmt: skip
    right.set(
        title="It knows when it does not know",
        xlabel="entropy of the mean prediction (nats)",
        ylabel="density of test images",
    )
    right.legend(title="answer")
    figures.footnote(figure, passport.provenance(SEED))
    return figure
