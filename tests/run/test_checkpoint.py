"""Checkpoints: a run goes on along its path, on any layout, and nothing damaged is let in."""

from __future__ import annotations

import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import spnb
from spnb.run import checkpoint, files
from tests.methods import METHODS
from tests.run.problems import problem

TRIALS = int(os.environ.get("SPNB_TRIALS", "3"))
"""How often a file is damaged (twice as often) and a writer is killed; 100 in `make test-all`."""
PoolOf = Callable[[int], spnb.WorkerPool]
SETTINGS: dict[str, Any] = dict(
    num_samples=5,
    batch_size=8,
    epochs=5,
    learning_rate=0.02,
    schedule="cosine",
    warmup_steps=4,
    clip_norm=1.0,
    weight_decay=0.01,
)
"""25 rows: four steps an epoch, the last one smaller."""


class Stop(Exception):
    """Thrown in the middle of a run, on all ranks at the same step."""


class Stopping:
    """An augmentation that changes nothing, and stops the run at a step."""

    def __init__(self, at: int) -> None:
        self.left = at

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        if not self.left:
            raise Stop
        self.left -= 1
        return x

    def __repr__(self) -> str:
        return "Stopping"


def run(
    folder: Path | None,
    layout: spnb.Layout | None,
    stop_at: int = -1,
    method: str = "MeanField",
    **changes: Any,
) -> spnb.Fitted | None:
    """The same run, whole or stopped, new or resumed; ``None`` if it was stopped."""
    start, data = problem(25)
    settings = SETTINGS | {"augment": Stopping(stop_at)} | changes
    if method == "SGMCMC":
        for name in ("schedule", "warmup_steps", "weight_decay"):
            del settings[name]
    posterior = METHODS[method](start.model)
    if posterior.draws_in_training is not None:
        del settings["num_samples"]
    plan = folder and spnb.Checkpoints(folder, every=3)
    try:
        return spnb.fit(posterior, data, layout=layout, checkpoints=plan, **settings)
    except Stop:
        return None


def difference(one: spnb.Fitted, other: spnb.Fitted) -> float:
    """The largest difference of parameters, kept buffers, and losses."""
    pairs = zip(
        one.posterior.state_dict().items(), other.posterior.state_dict().items(), strict=True
    )
    found = [(a - b).abs().max().item() for (_, a), (_, b) in pairs if a.numel()]
    losses = zip(one.history.loss, other.history.loss, strict=True)
    return max(*found, *(abs(a - b) for a, b in losses))


@pytest.mark.parametrize("method", ["MeanField", "Ensemble", "SGMCMC", "SWAG", "LowRank"])
def test_a_run_of_two_ranks_goes_on_along_its_path_on_any_layout(
    pool_of: PoolOf, tmp_path: Path, method: str
) -> None:
    whole = run(None, None, method=method)
    assert whole is not None
    swag = method == "SWAG"  # one point, so nothing to share along ``sample``
    first = spnb.Layout(1, 2) if swag else spnb.Layout(2, 1)
    assert pool_of(2).run(run, tmp_path / "first", first, 11, method) == [None] * 2
    assert spnb.Checkpoints(tmp_path / "first").steps() == [9, 6]
    for degrees in [(1, 3), (1, 1)] if swag else [(2, 1), (1, 2), (2, 2), (1, 1)]:
        layout = spnb.Layout(*degrees)
        folder = tmp_path / str(degrees)
        shutil.copytree(tmp_path / "first", folder)
        for again in pool_of(layout.size).run(run, folder, layout, -1, method, resume=True):
            assert len(again.history.loss) == 20 and len(again.history.epochs) == 5
            assert difference(again, whole) <= 1e-9, degrees
        assert spnb.Checkpoints(folder).steps() == [20, 18]


def test_on_the_same_layout_not_a_bit_differs(pool_of: PoolOf, tmp_path: Path) -> None:
    layout = spnb.Layout(2, 1)
    whole = pool_of(2).run(run, tmp_path / "whole", layout)[0]
    pool_of(2).run(run, tmp_path / "cut", layout, 17)
    again = pool_of(2).run(run, tmp_path / "cut", layout, resume=True)[0]
    assert difference(again, whole) == 0


def test_a_finished_run_comes_back_at_once_and_may_be_made_longer(tmp_path: Path) -> None:
    steady = {"schedule": "constant", "epochs": 3}
    first = run(tmp_path / "a", None, **steady)
    again = run(tmp_path / "a", None, 0, resume=True, **steady)  # not a single step more
    longer = run(tmp_path / "a", None, resume=True, schedule="constant", epochs=5)
    straight = run(None, None, schedule="constant", epochs=5)
    assert first and again and longer and straight
    assert difference(first, again) == 0 and difference(longer, straight) == 0
    run(tmp_path / "b", None, epochs=3)
    with pytest.raises(ValueError, match=r"epochs=3 there, 5 here, and schedule='cosine' looks"):
        run(tmp_path / "b", None, resume=True)


def test_checkpoints_are_never_overwritten_unasked(tmp_path: Path) -> None:
    run(tmp_path, None, 7)
    with pytest.raises(ValueError, match="holds a checkpoint of step 6: say resume=True"):
        run(tmp_path, None)
    assert run(tmp_path / "new", None, epochs=2, resume=True) is not None  # nothing there: begins


def test_the_best_and_the_last_are_kept(tmp_path: Path) -> None:
    start, (x, y) = problem(40)
    fitted = spnb.fit(
        start,
        (x[:25], y[:25]),
        validation=(x[25:], y[25:]),
        num_samples=2,
        epochs=12,
        batch_size=25,
        learning_rate=0.3,  # too large, so that the last epoch is not the best
        checkpoints=spnb.Checkpoints(tmp_path, keep=3, best="nll"),
    )
    assert spnb.Checkpoints(tmp_path).steps() == [12, 11, 10]
    nll = [record.scores["nll"] for record in fitted.history.epochs]
    _, about = checkpoint.load(tmp_path / "best.safetensors")
    best = nll.index(min(nll)) + 1
    assert int(about["step"]) == best < 12
    with pytest.raises(
        ValueError, match=r"best='crps' is no score of this model; there are accuracy"
    ):
        spnb.fit(
            start,
            (x, y),
            validation=(x, y),
            checkpoints=spnb.Checkpoints(tmp_path / "b", best="crps"),
        )
    with pytest.raises(ValueError, match="best='nul' is no score to choose by; there are accuracy"):
        spnb.Checkpoints(tmp_path, best="nul")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seed": 1}, "seed=0 there, 1 here"),
        ({"batch_size": 5}, "batch_size=8 there, 5 here"),
        ({"num_samples": 6}, "num_samples=5 there, 6 here"),
        ({"objective": spnb.ELBO(2.0)}, "objective.temperature=1.0 there, 2.0 here"),
        ({"method": "Point"}, "method='MeanField' there, 'Point' here"),
    ],
)
def test_another_run_is_refused(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    run(tmp_path, None, 7)
    with pytest.raises(ValueError, match=f"belongs to another run: .*{words}"):
        run(tmp_path, None, resume=True, **change)


def test_other_data_and_another_net_are_refused(tmp_path: Path) -> None:
    start, (x, y) = problem(25)
    plan = spnb.Checkpoints(tmp_path)
    spnb.fit(start, (x, y), checkpoints=plan)
    with pytest.raises(ValueError, match="data='"):
        spnb.fit(start, (x + 1, y), checkpoints=plan, resume=True)
    other = spnb.MeanField(spnb.BayesianModel(torch.nn.Linear(12, 3).double()))
    with pytest.raises(ValueError, match=r"another model: it has '0.weight' \[10, 12\]"):
        spnb.fit(other, (x, y), checkpoints=plan, resume=True)
    with pytest.raises(ValueError, match="resume=True needs checkpoints="):
        spnb.fit(start, (x, y), resume=True)
    with pytest.raises(TypeError, match="checkpoints is a int; give spnb.Checkpoints"):
        spnb.fit(start, (x, y), checkpoints=3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="resume=3 must be True, False or the path"):
        spnb.fit(start, (x, y), resume=3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="best='nll' needs validation data"):
        spnb.fit(start, (x, y), checkpoints=spnb.Checkpoints(tmp_path / "b", best="nll"))
    with pytest.raises(FileNotFoundError, match="It is a folder: give the file in it"):
        spnb.fit(start, (x, y), resume=tmp_path)
    (tmp_path / "taken").write_text("")
    with pytest.raises(OSError, match="taken' cannot hold checkpoints: File exists. Give another"):
        spnb.fit(start, (x, y), checkpoints=tmp_path / "taken")
    with pytest.raises(ValueError, match="keep=0 must be at least 1"):
        spnb.Checkpoints(tmp_path, keep=0)


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("exploded",)


def damaged(whole: bytes, kind: int, rng: random.Random) -> bytes:
    """One of many ways in which a file can be wrong."""
    if kind == 0:  # truncated
        return whole[: rng.randrange(len(whole))]
    if kind == 1:  # one bit
        at = rng.randrange(len(whole))
        return whole[:at] + bytes([whole[at] ^ 1 << rng.randrange(8)]) + whole[at + 1 :]
    if kind == 2:  # one bit of the words at its beginning
        at = rng.randrange(8 + int.from_bytes(whole[:8], "little"))
        return whole[:at] + bytes([whole[at] ^ 1 << rng.randrange(8)]) + whole[at + 1 :]
    if kind == 3:  # another version, format, or length of the header
        old, new = rng.choice(
            [(b'"version":"1"', b'"version":"9"'), (b"spnb checkpoint", b"some checkpoint")]
        )
        return whole.replace(old, new)
    if kind == 4:  # a stretch of zeros, as a disk leaves it
        at = rng.randrange(len(whole) - 64)
        return (
            whole[:at] + (bytes(64) if whole[at : at + 64] != bytes(64) else b"") + whole[at + 64 :]
        )
    bomb = pickle.dumps(Bomb())
    return bomb if rng.random() < 0.5 else whole[:8] + bomb + whole[8 + len(bomb) :]


def test_damaged_checkpoints_are_refused_and_none_is_executed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run(tmp_path, None, 7)
    plan, rng = spnb.Checkpoints(tmp_path), random.Random(0)
    whole = plan.file(6).read_bytes()
    for number in range(2 * TRIALS):
        plan.file(6).write_bytes(damaged(whole, number % 6, rng))
        with pytest.raises(ValueError, match=r"step-00000003.safetensors' is whole: resume from"):
            checkpoint.load(plan.file(6))
    assert not (tmp_path / "exploded").exists()
    with pytest.warns(UserWarning, match="Going back to the one before"):
        again = run(tmp_path, None, resume=True)
    straight = run(None, None)
    assert again and straight and difference(again, straight) == 0
    plan.file(18).write_bytes(b"")
    for name in ("step-00000020", "step-00000018"):
        (tmp_path / f"{name}.safetensors").write_bytes(whole[:-1])
    with pytest.raises(ValueError, match="No other there is whole"):
        checkpoint.load(plan.file(20))


def test_a_forged_checkpoint_that_fits_its_digest_says_no_nonsense(tmp_path: Path) -> None:
    run(tmp_path, None, 7)
    plan = spnb.Checkpoints(tmp_path)
    tensors, about = checkpoint.load(plan.file(6))
    (tmp_path / "new").mkdir()
    for change in ({"optimizer": "[]"}, {"schedule": "3"}, {"step": '"x"'}, {"epochs": "[1]"}):
        spnb.Checkpoints(tmp_path / "new").write(6, dict(tensors), about | change, False)
        with pytest.raises(ValueError, match="says nothing that makes sense here"):
            run(tmp_path / "new", None, resume=True)
    spnb.Checkpoints(tmp_path / "new").write(
        6, tensors | {"posterior/loc": torch.zeros(3)}, about, False
    )
    with pytest.raises(ValueError, match=r"checkpoint's 'loc' is torch.float32 \[3\], this run's"):
        run(tmp_path / "new", None, resume=True)


WRITING = """
import sys
import time
import torch
from spnb.run import files
from pathlib import Path
tensors = {str(i): torch.full((50_000,), float(i)) for i in range(10)}
number = 0
while True:
    start = time.perf_counter()
    number += 1
    files.write(Path(sys.argv[1]), tensors, {"format": "f", "version": "1", "number": str(number)})
    if number == 2:
        print(time.perf_counter() - start, flush=True)
"""


def test_killed_while_writing_there_is_always_a_whole_checkpoint(tmp_path: Path) -> None:
    """Many times, on one file: the old one or the new one, never a broken one."""
    rng, path = random.Random(1), tmp_path / "step-00000001.safetensors"
    for _ in range(TRIALS):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITING, str(path)], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        once = float(writer.stdout.readline())
        time.sleep(rng.uniform(0.0, 4.0) * once)  # somewhere within the writings that follow
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        assert int(files.read(path, "f", "1")[1]["number"]) >= 2
    files.tidy(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_a_full_disk_is_named_and_what_was_written_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path, None, 7)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        OSError, match=r"9.safetensors' cannot be written: No space left on .* of step 6"
    ):
        run(tmp_path, None, resume=True)
    monkeypatch.undo()
    assert spnb.Checkpoints(tmp_path).steps() == [6, 3]
    assert not list(tmp_path.glob(".*"))
    again, straight = run(tmp_path, None, resume=True), run(None, None)
    assert again and straight and difference(again, straight) == 0


def test_foreign_files_beside_them_do_no_harm(tmp_path: Path) -> None:
    run(tmp_path, None, 7)
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "step-7.safetensors").write_bytes(b"")
    assert spnb.Checkpoints(tmp_path).steps() == [6, 3]
    save_file(load_file(spnb.Checkpoints(tmp_path).file(6)), tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="'something else', version none; this reads 'spnb ch"):
        run(tmp_path, None, resume=tmp_path / "other.safetensors")
    with pytest.raises(FileNotFoundError, match="There is no file"):
        run(tmp_path, None, resume=tmp_path / "nothing.safetensors")
