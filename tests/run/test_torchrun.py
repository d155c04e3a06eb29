"""The same function under ``python -m torch.distributed.run``, as on many nodes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import spnb
from tests.run.problems import problem

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
