"""A recipe under ``python -m torch.distributed.run``: the same configuration, the same record."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from spnb.teach.recipes import execute

HANG = 300.0
"""Seconds after which a test takes something for hanging."""

needs_data = pytest.mark.skipif(
    not os.environ.get("SPNB_DATA"), reason="needs the electricity load in $SPNB_DATA"
)


@needs_data
@pytest.mark.service
@pytest.mark.parametrize("axes", [[], ["--sample=1", "--data=2"]])
def test_a_launcher_gets_the_record_of_a_serial_run(tmp_path: Path, axes: list[str]) -> None:
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "OMP_NUM_THREADS": "1",
        "GLOO_SOCKET_IFNAME": "lo",
    }
    shared, alone = tmp_path / "shared", tmp_path / "alone"
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr=127.0.0.1",
         f"--log-dir={tmp_path / 'logs'}", "--nproc-per-node=2",
         "-m", "spnb", "recipe", "load", "--scale=ci", f"--out={shared}", *axes],
        env=environment, capture_output=True, text=True, timeout=HANG,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Wrote ") == 1, "rank 0 alone speaks"
    execute("load", "ci", folder=alone)
    found, wanted = (json.loads((folder / "load.json").read_text()) for folder in (shared, alone))
    layout = "sample=1 × data=2" if axes else "sample=2 × data=1"
    assert (found.pop("layout"), wanted.pop("layout")) == (layout, "sample=1 × data=1")
    assert found["settings"] == wanted["settings"]
    for who, scores in wanted["scores"].items():
        assert found["scores"][who] == pytest.approx(scores, rel=1e-3)


@needs_data
@pytest.mark.pool
@pytest.mark.slow
@pytest.mark.parametrize("end", ["interrupt", "kill"])
def test_a_run_that_is_ended_says_so_and_leaves_nothing(tmp_path: Path, end: str) -> None:
    command = [sys.executable, "-m", "spnb", "recipe", "load", "--scale=laptop", "--ranks=2"]
    run = subprocess.Popen(
        [*command, f"--out={tmp_path}"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env=os.environ | {"OMP_NUM_THREADS": "1"}, text=True, start_new_session=True,
    )  # fmt: skip
    workers: list[psutil.Process] = []
    deadline = time.monotonic() + HANG
    while len(workers) < 2 or sum(w.cpu_times().user > 4 for w in workers) < 2:  # at work
        assert run.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
        children = psutil.Process(run.pid).children()
        workers = [child for child in children if "spawn_main" in " ".join(child.cmdline())]
    if end == "kill":
        workers[1].kill()
    else:
        os.killpg(run.pid, signal.SIGINT)
    said, _ = run.communicate(timeout=HANG)
    assert run.returncode == (1 if end == "kill" else 130)
    assert ("rank 1 was killed" if end == "kill" else "Interrupted: all ranks") in said
    assert "Traceback" not in said
    assert not any(worker.is_running() for worker in workers)
    assert not list(tmp_path.iterdir())
