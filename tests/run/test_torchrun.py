"""The same function under ``python -m torch.distributed.run``, as on many nodes; killed, too."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest
import torch

import spnb
from tests.run.accidents import TRIALS, somewhere
from tests.run.problems import problem

ROOT = Path(__file__).parents[2]
HANG = 300.0
"""Seconds after which a test takes something for hanging."""
KILLS = 5
"""How many ranks are killed in a run, at most."""

SCRIPT = """
import os, sys, torch, spnb
from tests.run.problems import problem

posterior, data = problem(25)
rank = int(os.environ["RANK"])
with torch.no_grad():  # a script makes its net on every rank, from whatever seed
    posterior.loc += rank
layout = spnb.Layout(sample=-1)
fitted = spnb.fit(posterior, data, layout=layout, epochs=3, batch_size=10, num_samples=5)
draws = spnb.predict(fitted.posterior, data[0], num_samples=5, layout=layout, gather=rank == 0)
if rank == 0:
    torch.save({"loc": fitted.posterior.loc.detach(), "draws": draws}, sys.argv[1])
"""


@pytest.mark.service
@pytest.mark.parametrize("world_size", [1, 2])
def test_a_script_computes_the_same_run(tmp_path: Path, world_size: int) -> None:
    script, found = tmp_path / "train.py", tmp_path / "found.pt"
    script.write_text(SCRIPT)
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo",
    }
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr=127.0.0.1",
         f"--log-dir={tmp_path / 'logs'}", f"--nproc-per-node={world_size}",
         str(script), str(found)],
        env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    posterior, data = problem(25)
    expected = spnb.fit(posterior, data, epochs=3, batch_size=10, num_samples=5).posterior
    results = torch.load(found)
    torch.testing.assert_close(results["loc"], expected.loc.detach(), rtol=0, atol=1e-12)
    draws = spnb.predict(expected, data[0], num_samples=5)
    torch.testing.assert_close(results["draws"], draws, rtol=0, atol=1e-12)


KILLED = """
import json, os, sys, torch, spnb
from pathlib import Path
from tests.run import accidents

folder, places = Path(sys.argv[1]), json.loads(sys.argv[2])
fitted = accidents.run(folder, spnb.Layout(sample=-1), accidents.Accidents(folder, places))
if os.environ["RANK"] == "0":
    torch.save(fitted.posterior.state_dict(), folder / "found")
"""


def survivor(folder: Path, places: Sequence[tuple[int, int, float]]) -> dict[str, torch.Tensor]:
    """What a run has learnt whose agent starts all ranks again whenever one was killed."""
    folder.mkdir()
    (folder / "train.py").write_text(KILLED)
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)]),
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo",
    }
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr=127.0.0.1",
         f"--log-dir={folder / 'logs'}", f"--max-restarts={len(places)}",
         "--monitor-interval=0.1", "--nproc-per-node=2",
         str(folder / "train.py"), str(folder), json.dumps(places)],
        env=environment, capture_output=True, text=True, timeout=HANG,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(list(folder.glob("mark *"))) == len(places)
    running = psutil.process_iter(["cmdline"])
    assert not [p for p in running if str(folder) in str(p.info["cmdline"])]
    return torch.load(folder / "found")


@pytest.mark.service
@pytest.mark.timeout(900 + 30 * TRIALS)
def test_ranks_that_are_killed_are_started_again(tmp_path: Path) -> None:
    rng = random.Random(1)
    expected = survivor(tmp_path / "whole", [])
    kills = min(TRIALS, KILLS)
    for trial in range(TRIALS // kills):
        found = survivor(tmp_path / str(trial), [somewhere(rng) for _ in range(kills)])
        assert all(torch.equal(found[name], expected[name]) for name in expected)
