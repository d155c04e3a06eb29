"""Where a posterior computes, with a patched number of GPUs; none is touched."""

from __future__ import annotations

import pytest
import torch

from spnb.parallel import devices
from spnb.run.place import place_of, placed
from tests.run.problems import problem


def test_a_rank_computes_on_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    posterior, _ = problem()
    monkeypatch.setattr(devices, "visible_gpus", lambda: 8)
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert place_of(posterior) == torch.device("cuda", 3)
    assert place_of(posterior, "cpu") == torch.device("cpu")


def test_a_notebook_stays_where_the_posterior_is(monkeypatch: pytest.MonkeyPatch) -> None:
    posterior, _ = problem()
    monkeypatch.setattr(devices, "visible_gpus", lambda: 8)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert place_of(posterior) == torch.device("cpu")
    assert placed(posterior) is posterior


def test_a_posterior_is_copied_to_another_place() -> None:
    posterior, _ = problem()
    moved = placed(posterior, "meta")
    assert moved.loc.device.type == "meta" and posterior.loc.device.type == "cpu"
