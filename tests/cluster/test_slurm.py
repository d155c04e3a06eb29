"""Several nodes of a real Slurm compute what one process computes."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from spnb.parallel import devices, launch
from spnb.teach import tour
from tests.cluster.slurm import Slurm, missing, slurm

ROOT = Path(__file__).parents[2]
VENV = Path(sys.prefix)
EPOCHS = 2


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    assert not missing(), f"no {', '.join(missing())}: `make system-packages` installs them"
    with slurm(tmp_path_factory.mktemp("slurm") / "cluster") as running:
        running.env |= {
            "SPNB_VENV": str(VENV),
            "PYTHONPATH": str(ROOT),
            "GLOO_SOCKET_IFNAME": "lo",
            "SPNB_LOCAL_ADDR": "127.0.0.1",
        }
        for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
            running.env.pop(name, None)
        yield running


@pytest.fixture(scope="module")
def serial() -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    torch.set_num_threads(1)
    fitted, scores = tour.train(None, EPOCHS)
    return fitted.posterior.state_dict(), scores


def template(folder: Path, name: str) -> Path:
    """A copy of a template, where its output may go."""
    copy = folder / name
    copy.write_text((ROOT / "deploy/slurm" / name).read_text())
    return copy


@pytest.mark.service
@pytest.mark.parametrize("degrees", [(2, 2, 1), (2, 1, 2)], ids=["hybrid", "sharded"])
def test_two_nodes_give_the_tours_numbers(
    cluster: Slurm, serial: Any, tmp_path: Path, degrees: tuple[int, int, int]
) -> None:
    words = [
        str(w)
        for pair in zip(("--sample", "--data", "--shard"), degrees, strict=True)
        for w in pair
    ]
    said = cluster.batch(
        template(tmp_path, "train.sbatch"), *RESOURCES, "--ntasks-per-node=2",
        words=["-m", "spnb", "tour", "--epochs", str(EPOCHS), "--out", str(tmp_path), *words],
    )  # fmt: skip
    alone, four = json.loads((tmp_path / "tour.json").read_text())["rows"]
    assert four["ranks"] == 4 and four["layout"] in said
    assert four["difference"] <= 1e-5  # float32
    for name, value in serial[1].items():
        if name in four:
            assert four[name] == pytest.approx(value, abs=1e-5)
            assert alone[name] == pytest.approx(value, abs=1e-6)


RESOURCES = ["--gpus-per-node=2", "--cpus-per-task=1"]

WHERE = """
import os, socket, torch.distributed as dist
from spnb.parallel.collectives import is_rank, local_device, world
rank, size = world()
place = [None] * size
dist.all_gather_object(place, (os.environ["SLURMD_NODENAME"], os.environ["LOCAL_RANK"],
    os.environ["CUDA_VISIBLE_DEVICES"], is_rank(), str(local_device()[0])))
if rank == 0:
    print(place)
"""


@pytest.mark.service
def test_ranks_are_numbered_node_by_node(cluster: Slurm, tmp_path: Path) -> None:
    (tmp_path / "where.py").write_text(WHERE)
    said = cluster.batch(
        template(tmp_path, "train.sbatch"), *RESOURCES, "--ntasks-per-node=2",
        words=[str(tmp_path / "where.py")],
    )  # fmt: skip
    places = eval(said.splitlines()[-1])
    assert [(node, local) for node, local, *_ in places] == [
        ("n1", "0"), ("n1", "1"), ("n2", "0"), ("n2", "1"),
    ]  # fmt: skip
    assert all(place[2:] == ("0,1", True, "cpu") for place in places)


@pytest.mark.service
def test_a_task_that_dies_ends_the_job_at_once(cluster: Slurm, tmp_path: Path) -> None:
    (tmp_path / "die.py").write_text(
        "import os, time\n"
        "from spnb.parallel.collectives import world\n"
        "if world()[0] == 3:\n    os.kill(os.getpid(), 9)\n"
        "time.sleep(3600)\n"  # longer than the job is waited for
    )
    with pytest.raises(AssertionError, match="FAILED"):
        cluster.batch(
            template(tmp_path, "train.sbatch"), *RESOURCES, "--ntasks-per-node=2",
            words=[str(tmp_path / "die.py")],
        )  # fmt: skip


ELASTIC = """
import os, sys, time, torch, spnb
from pathlib import Path
from tests.run import accidents

folder = Path(sys.argv[1])
accident = accidents.Accident("kill", 3, 7, folder / "mark")
fitted = accidents.run(folder / "run", spnb.Layout(sample=-1), accident)
if os.environ["RANK"] == "0":
    torch.save(fitted.posterior.state_dict(), folder / "found")
    print("ranks", os.environ["WORLD_SIZE"], "attempt", os.environ["TORCHELASTIC_RESTART_COUNT"])
"""


@pytest.mark.service
def test_a_rank_that_dies_on_one_node_is_started_again(cluster: Slurm, tmp_path: Path) -> None:
    from tests.run import accidents

    (tmp_path / "train.py").write_text(ELASTIC)
    cluster.env["SPNB_RANKS_PER_NODE"] = "2"
    cluster.env["TMPDIR"] = str(tmp_path)  # for the logs of the agents
    said = cluster.batch(
        template(tmp_path, "elastic.sbatch"), *RESOURCES,
        words=[str(tmp_path / "train.py"), str(tmp_path)],
    )  # fmt: skip
    assert "ranks 4 attempt" in said
    (tmp_path / "alone").mkdir()
    alone = accidents.run(tmp_path / "alone", None, None).posterior.state_dict()
    for name, value in torch.load(tmp_path / "found").items():
        torch.testing.assert_close(value, alone[name], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("words", "first"),
    [
        ("n[1-2]", "n1"),
        ("gpu[007-009,12],login", "gpu007"),
        ("gpu001,gpu003", "gpu001"),
        ("one", "one"),
        ("r[3,5]n-a,x", "r3n-a"),
    ],
)
def test_the_first_node_of_a_list(words: str, first: str) -> None:
    assert launch._first(words) == first


def test_tasks_of_nodes() -> None:
    assert launch._tasks("2(x3),1") == [2, 2, 2, 1]
    assert launch._tasks("4") == [4]


def test_only_tasks_of_srun_are_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    told = {"SLURM_JOB_ID": "7", "SLURM_PROCID": "0", "SLURM_NTASKS": "4"}  # a batch script
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    launch.adopt_slurm()
    assert "RANK" not in os.environ
    told = {
        "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "3", "SLURM_PROCID": "2",
        "SLURM_NODEID": "1", "SLURM_LOCALID": "0", "SLURM_STEP_TASKS_PER_NODE": "2,1",
        "SLURM_STEP_NODELIST": "localhost,n2",
    }  # fmt: skip
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "x")
        monkeypatch.delenv(name)
    launch.adopt_slurm()
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    assert [os.environ.pop(name) for name in names] == ["2", "3", "0", "1", "localhost", "12217"]


def test_a_gpu_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slurm may show each of four tasks one of the node's four GPUs alone."""
    monkeypatch.setattr(devices, "visible_gpus", lambda: 1)
    monkeypatch.setenv("SLURM_GPUS_ON_NODE", "4")
    assert devices.choose(3, 4) == (torch.device("cuda", 0), "nccl")
    monkeypatch.setenv("SLURM_GPUS_ON_NODE", "1")
    with pytest.warns(UserWarning, match="4 ranks need 4 GPUs"):
        assert devices.choose(0, 4)[0].type == "cpu"
