"""Two hosts, each a network and process namespace of its own, under torch.distributed.run."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from spnb.teach import tour
from tests.run import accidents

ROOT = Path(__file__).parents[2]
EPOCHS = 2

pytestmark = [
    pytest.mark.service,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root may make network namespaces"),
]


class Hosts:
    """Two hosts that see each other through one cable, and nothing else."""

    def __init__(self, name: str, folder: Path) -> None:
        self.names, self.folder = [f"{name}a", f"{name}b"], folder
        self.addresses = ["10.231.77.1", "10.231.77.2"]

    def connect(self) -> None:
        """Make both, and the cable."""
        for name in self.names:
            _ip("netns", "add", name)
            _ip("-n", name, "link", "set", "lo", "up")
        a, b = self.names
        _ip("-n", a, "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", b)
        for name, address in zip(self.names, self.addresses, strict=True):
            _ip("-n", name, "addr", "add", f"{address}/24", "dev", "cable")
            _ip("-n", name, "link", "set", "cable", "up")

        for name, address in zip(self.names, self.addresses, strict=True):  # no name server here
            folder = Path("/etc/netns") / name
            folder.mkdir(parents=True)
            (folder / "nsswitch.conf").write_text("hosts: files\n")
            (folder / "hosts").write_text(
                f"127.0.0.1 localhost\n{address} {socket.gethostname()}\n"
            )

    def remove(self) -> None:
        """Take them away again; what runs there has ended."""
        for name in self.names:
            shutil.rmtree(Path("/etc/netns") / name, ignore_errors=True)
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)

    def start(self, number: int, nodes: str, *words: str) -> subprocess.Popen[str]:
        """Start an agent with two ranks on one of them."""
        env = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "TORCHELASTIC"))}
        env |= {
            "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)]),
            "OMP_NUM_THREADS": "1",
            "GLOO_SOCKET_IFNAME": "cable",
            "SPNB_TEST_HOST": str(number),
            "TMPDIR": str(self.folder),  # an agent that is killed leaves its logs there
        }
        run = ["--nproc-per-node=2", "--max-restarts=3", "--rdzv-backend=c10d", "--rdzv-id=two"]
        quick = "join_timeout=60,last_call_timeout=2,keep_alive_interval=1,keep_alive_max_attempt=3"
        return subprocess.Popen(
            ["ip", "netns", "exec", self.names[number],
             "unshare", "--fork", "--pid", "--mount-proc", "--kill-child=KILL",
             sys.executable, "-m", "torch.distributed.run", f"--nnodes={nodes}", *run,
             f"--rdzv-endpoint={self.addresses[0]}:29411", f"--rdzv-conf={quick}",
             "--monitor-interval=0.1", f"--local-addr={self.addresses[number]}", *words],
            env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    pair = Hosts(f"spnb{os.getpid()}", tmp_path)
    try:
        try:
            pair.connect()
        except subprocess.CalledProcessError as error:  # a container may forbid it
            pytest.skip(f"no network namespaces here: {error.stderr.decode().strip()}")
        yield pair
    finally:
        pair.remove()


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


def test_two_hosts_give_the_tours_numbers(hosts: Hosts, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    words = ["-m", "spnb", "tour", "--epochs", str(EPOCHS), "--sample", "1", "--data", "2",
             "--shard", "2", "--out", str(tmp_path)]  # fmt: skip
    agents = [hosts.start(number, "2", *words) for number in range(2)]
    said = [agent.communicate(timeout=300)[0] for agent in agents]
    assert [agent.returncode for agent in agents] == [0, 0], said
    _, four = json.loads((tmp_path / "tour.json").read_text())["rows"]
    assert four["layout"] == "sample=1 × data=2 × shard=2" and four["difference"] <= 1e-5
    _, scores = tour.train(None, EPOCHS)
    for name in ("accuracy", "nll", "ece"):
        assert four[name] == pytest.approx(scores[name], abs=1e-5)


SCRIPT = """
import os, sys, torch, spnb
from pathlib import Path
from tests.run import accidents

folder = Path(sys.argv[1])
here = os.environ["SPNB_TEST_HOST"] == "1"
accident = accidents.Accident("hang", int(os.environ["RANK"]) if here else -1, 7, folder / "mark")
fitted = accidents.run(folder / "run", spnb.Layout(sample=-1), accident)
if os.environ["RANK"] == "0":
    torch.save(fitted.posterior.state_dict(), folder / "found")
    print("finished with", os.environ["WORLD_SIZE"], "ranks")
"""


def test_a_run_goes_on_without_a_host_that_was_lost(hosts: Hosts, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(SCRIPT)
    agents = [
        hosts.start(number, "1:2", str(tmp_path / "train.py"), str(tmp_path)) for number in range(2)
    ]
    left, lost = agents  # the store is on the first one
    end = time.monotonic() + 300
    while not (tmp_path / "mark").exists():
        assert time.monotonic() < end and lost.poll() is left.poll() is None
        time.sleep(0.05)
    lost.kill()  # with everything on it, in the middle of a step
    lost.communicate()
    said, _ = left.communicate(timeout=300)
    assert left.returncode == 0, said
    assert "finished with 2 ranks" in said
    (tmp_path / "alone").mkdir()
    alone = accidents.run(tmp_path / "alone", None, None).posterior.state_dict()
    for name, value in torch.load(tmp_path / "found").items():
        torch.testing.assert_close(value, alone[name], rtol=0, atol=1e-5)
