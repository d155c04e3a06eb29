"""The record of a run: one entry a step, one an epoch."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field


@dataclass(frozen=True)
class StepRecord:
    """One step.

    Attributes:
        step: index of the step, from 0.
        loss: data term + temperature / N * divergence.
        data_term: the objective's mean loss of the batch.
        divergence: KL(posterior || prior), in nats.
        gradient_norm: Euclidean length of the gradient, before clipping.
        learning_rate: the one used in this step.
        seconds: wall time of the step on rank 0.
    """

    step: int
    loss: float
    data_term: float
    divergence: float
    gradient_norm: float
    learning_rate: float
    seconds: float


@dataclass(frozen=True)
class EpochRecord:
    """One epoch.

    Attributes:
        epoch: index of the epoch, from 0.
        loss: mean loss of its steps.
        seconds: wall time of its steps on rank 0.
        scores: scores of the model average on the validation data, by name.
    """

    epoch: int
    loss: float
    seconds: float
    scores: dict[str, float]


@dataclass
class History:
    """What happened in a run, in order.

    Attributes:
        steps: one record a step.
        epochs: one record an epoch.
        bytes_per_step: bytes that a rank handed to collectives in a step, on average.
    """

    steps: list[StepRecord] = field(default_factory=list)
    epochs: list[EpochRecord] = field(default_factory=list)
    bytes_per_step: float = 0.0

    def end_epoch(self, epoch: int, steps: int, scores: dict[str, float]) -> None:
        """Add the record of an epoch whose steps are there.

        Args:
            epoch: index of the epoch.
            steps: how many steps an epoch has.
            scores: of the validation data.
        """
        recent = self.steps[-steps:]
        loss, seconds = (sum(getattr(r, name) for r in recent) for name in ("loss", "seconds"))
        self.epochs.append(EpochRecord(epoch, loss / steps, seconds, scores))

    @property
    def loss(self) -> list[float]:
        """Loss of every step."""
        return [record.loss for record in self.steps]

    def table(self) -> list[dict[str, float]]:
        """The steps as rows, ready for ``pandas.DataFrame``."""
        return [asdict(record) for record in self.steps]

    def __repr__(self) -> str:
        """Length and last loss, not thousands of numbers."""
        last = f", last loss {self.steps[-1].loss:.4g}" if self.steps else ""
        return f"History({len(self.epochs)} epochs, {len(self.steps)} steps{last})"
