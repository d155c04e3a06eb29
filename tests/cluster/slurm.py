"""A real Slurm of two nodes on this machine, on loopback, that leaves nothing behind."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PROGRAMS = ("munged", "slurmctld", "slurmd", "srun", "sbatch", "scontrol")

CONFIG = """
ClusterName=spnb
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CryptoType=crypto/munge
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
ReturnToService=2
SlurmctldPort={port}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
GresTypes=gpu
KillWait=2
MessageTimeout=30
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={first} CPUs=4 Gres=gpu:4 State=UNKNOWN
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={second} CPUs=4 Gres=gpu:4 State=UNKNOWN
PartitionName=all Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
"""

DEVICES = ("null", "zero", "full", "random")
"""Ordinary files that stand for four GPUs, so that Slurm hands out CUDA_VISIBLE_DEVICES."""


class Slurm:
    """A running cluster.

    Attributes:
        env: the environment in which its commands work.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env = os.environ | {"SLURM_CONF": str(folder / "slurm.conf")}
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Start everything, and wait until both nodes are idle."""
        folder = self.folder
        for name in ("state", "spool-n1", "spool-n2"):
            (folder / name).mkdir(parents=True)
        key = folder / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        port, first, second = _free_ports(3)
        text = CONFIG.format(
            host=socket.gethostname().split(".")[0],
            user=getpass.getuser(),
            folder=folder,
            port=port,
            first=first,
            second=second,
        )
        (folder / "slurm.conf").write_text(text)
        gres = [f"Name=gpu File=/dev/{name}" for name in DEVICES]
        (folder / "gres.conf").write_text("\n".join(gres) + "\n")
        socket_file = folder / "munge.socket"
        self._run(
            "munged", "--foreground", "--force", f"--key-file={key}", f"--socket={socket_file}",
            f"--pid-file={folder}/munge.pid", f"--log-file={folder}/munge.log",
            f"--seed-file={folder}/munge.seed",
        )  # fmt: skip
        _until(socket_file.exists, 60, "munged")
        self._run("slurmctld", "-D")
        for node in ("n1", "n2"):
            self._run("slurmd", "-D", "-N", node)
        _until(lambda: self.command("sinfo", "-h", "-o", "%T") == "idle", 120, "the nodes")

    def command(self, *words: str, **options: Any) -> str:
        """Run a command of Slurm, and return what it says."""
        done = subprocess.run(
            words, env=self.env, capture_output=True, text=True, timeout=60, **options
        )
        return (done.stdout + done.stderr).strip()

    def batch(
        self, script: Path, *options: str, words: Sequence[str] = (), within: float = 300.0
    ) -> str:
        """Submit a batch script, wait until it is over, and return what it printed.

        Args:
            script: its path; the output comes beside it.
            options: of ``sbatch``.
            words: for the script.
            within: seconds after which it is given up.

        Raises:
            AssertionError: it did not end well.
        """
        out = script.with_suffix(".out")
        said = self.command(
            "sbatch",
            "--parsable",
            f"--output={out}",
            *options,
            str(script),
            *words,
            cwd=script.parent,
        )
        assert said.isdigit(), said
        state = ""

        def over() -> bool:
            nonlocal state
            about = self.command("scontrol", "show", "job", said)
            state = about.partition("JobState=")[2].partition(" ")[0]
            return state not in ("PENDING", "RUNNING", "CONFIGURING", "COMPLETING", "")

        try:
            _until(over, within, f"job {said}")
        except AssertionError as error:
            about, text = self.command("scontrol", "show", "job", said), _read(out)
            self.command("scancel", said)
            raise AssertionError(f"{error}:\n{about}\n{text}") from None
        text = _read(out)
        assert state == "COMPLETED", f"{state}: {text}"
        return text

    def stop(self) -> None:
        """End everything that was started, the last first."""
        self.command("scancel", "--user", getpass.getuser())
        for process in reversed(self._processes):
            process.terminate()
        for process in reversed(self._processes):
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _run(self, *words: str) -> None:
        program = shutil.which(words[0], path=os.environ["PATH"] + ":/usr/sbin:/sbin")
        assert program is not None
        log = (self.folder / f"{words[0]}-{len(self._processes)}.said").open("wb")
        self._processes.append(
            subprocess.Popen(
                [program, *words[1:]],
                env=self.env,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        )


@contextmanager
def slurm(folder: Path) -> Iterator[Slurm]:
    """A cluster within a ``with`` block."""
    cluster = Slurm(folder)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


def missing() -> list[str]:
    """Programs that are not installed."""
    path = os.environ["PATH"] + ":/usr/sbin:/sbin"
    return [name for name in PROGRAMS if not shutil.which(name, path=path)]


def _read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def _free_ports(count: int) -> list[int]:
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listener.getsockname()[1] for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports


def _until(done: Callable[[], bool], seconds: float, what: str) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, f"{what} did not come within {seconds:.0f} s"
        time.sleep(0.1)
