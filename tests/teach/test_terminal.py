"""Commands of the terminal: refused before the work, interrupted without a trace."""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

import spnb
from spnb import doctor
from spnb.__main__ import main
from spnb.teach import pages, terminal, tour
from spnb.teach.datasets import DataUnavailableError
from spnb.teach.recipes import base

HANG = 300.0
"""Seconds after which a test takes something for hanging."""

ROOT = Path(__file__).parents[2]


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What a command says that is refused, before it starts a worker."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tour, "WorkerPool", None)
        patch.setattr(base, "WorkerPool", None)
        patch.setattr(tour, "train", None)
        with pytest.raises(SystemExit) as ended:
            main([*words])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["tour", "--epochs", "0"], "epochs=0 must be a whole number of at least 1."),
        (["tour", "--epochs", "-3"], "epochs=-3 must be a whole number of at least 1."),
        (["tour", "--epochs", "nan"], "--epochs: invalid int value: 'nan'"),
        (["tour", "--epochs", ""], "--epochs: invalid int value: ''"),
        (["tour", "--out", ""], "--out: it is empty: name a folder"),
        (["tour", "--sample", "5"], "sample=5 × data=1 = 5 != world_size=1"),
        (["tour", "--data", "0"], "data=0 must be at least 1"),
        (["recipe", "load", "--ranks", "0"], "ranks=0 must be at least 1."),
        (["recipe", "load", "--scale", ""], "'' is no scale; there are ci, laptop, node."),
        (["recipe", "load", "--sample", "3", "--ranks", "2"], "= 3 != world_size=2"),
        (["recipe", "load", "--shard", "-2"], "shard=-2 must be at least 1"),
        (["page", "planner", "--port", "99999"], "port=99999 is no port"),
        (["page", "planner", "--port", "0"], "port=0 is no port"),
        (["page", "planner", "--port", "-1"], "port=-1 is no port"),
        (["page", "planner", "--port", "nan"], "--port: invalid int value: 'nan'"),
    ],
)
def test_a_wrong_word_is_refused_before_the_work(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, words: list[str], said: str
) -> None:
    out = [] if words[0] == "page" or "--out" in words else ["--out", str(tmp_path / "out")]
    assert said in refused(capsys, *words, *out)
    assert not list(tmp_path.iterdir())


def test_too_many_ranks_are_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = ["recipe", "load", "--scale=ci", "--ranks", "1000000", f"--out={tmp_path / 'out'}"]
    with pytest.raises(SystemExit, match="2"):
        main(words)
    assert "1000000 workers are too many for this machine" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        doctor.main(["--ranks", "1000000"])
    assert "1000000 workers are too many for this machine" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", [["tour"], ["recipe", "load", "--scale=ci"]])
@pytest.mark.parametrize("out", ["file", "file/out", "link", "taken"])
def test_a_folder_that_cannot_be_written_to_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, command: list[str], out: str
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("tour.json", "load.json"):  # folders where files are to be
        (tmp_path / "taken" / name).mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    said = refused(capsys, *command, "--out", str(tmp_path / out))
    assert said.startswith(f"Results cannot be written to {tmp_path / out}: ")
    assert said.endswith("; name another folder.\n")
    assert sorted(tmp_path.rglob("*")) == before


def test_looking_at_a_folder_leaves_nothing_and_writing_makes_it(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    terminal.check_writable(folder, "numbers.json")
    assert not list(tmp_path.iterdir())
    said = terminal.write(folder, {"numbers.json": b"{}", "figure.png": b"png"})
    assert said == f"Wrote {folder / 'numbers.json'} and {folder / 'figure.png'}."
    assert (folder / "numbers.json").read_bytes() == b"{}"
    terminal.check_writable(folder, "numbers.json")
    assert (folder / "numbers.json").read_bytes() == b"{}"
    with pytest.raises(OSError, match=r"cannot be written to .*numbers.json: "):
        terminal.write(folder / "numbers.json", {"a": b""})


@pytest.mark.parametrize(
    ("layout", "words"),
    [
        (spnb.Layout(sample=-1), "16 ranks along sample but num_samples=8"),
        (spnb.Layout(sample=3), "sample=3 × data=1 = 3 != world_size=16"),
    ],
)
def test_a_layout_of_a_launcher_is_looked_at_before_the_serial_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, layout: spnb.Layout, words: str
) -> None:
    monkeypatch.setattr(tour, "world", lambda: (0, 16))
    monkeypatch.setattr(tour, "train", None)
    with pytest.raises(ValueError, match=words):
        tour.run_launched(tmp_path, layout, 1)


def test_a_port_in_use_is_refused_with_another_one(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server((pages.HOST, 0)) as other:
        port = other.getsockname()[1]
        said = refused(capsys, "page", "planner", f"--port={port}")
    assert said.startswith(f"Port {port} cannot be listened on (Address already in use): end what")
    free = int(said.rpartition("--port ")[2].rstrip(".\n"))
    assert free != port and 1 <= free <= 65535


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ValueError("a reason"), 2),
        (DataUnavailableError("a reason"), 2),
        (spnb.WorkerDied("a reason"), 1),
        (OSError("a reason"), 1),
    ],
)
def test_a_failure_ends_in_its_sentence(
    capsys: pytest.CaptureFixture[str], error: Exception, code: int
) -> None:
    with pytest.raises(SystemExit) as ended, terminal.ends_in_a_sentence(argparse.ArgumentParser()):
        raise error
    assert ended.value.code == code and capsys.readouterr().err == "a reason\n"


def test_an_error_of_the_program_keeps_its_traceback() -> None:
    with (
        pytest.raises(RuntimeError, match="a reason"),
        terminal.ends_in_a_sentence(argparse.ArgumentParser()),
    ):
        raise RuntimeError("a reason")


AS_A_PROGRAM = """
import runpy, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
class Look:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            print("torch is loaded", flush=True)
sys.meta_path.insert(0, Look())
runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
"""


def workers_of(program: psutil.Process) -> list[psutil.Process]:
    found = []
    for child in program.children():
        try:
            if "spawn_main" in " ".join(child.cmdline()):
                found.append(child)
        except psutil.NoSuchProcess:
            continue
    return found


@pytest.mark.pool
@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "ranks"),
    [
        (["spnb", "tour"], 0),  # while torch is loaded
        (["spnb", "tour"], 1),  # in the serial run
        (["spnb", "tour"], 2),  # in the next one
        (["spnb.doctor"], 2),
    ],
)
def test_an_interrupt_ends_a_command_and_leaves_nothing(
    tmp_path: Path, words: list[str], ranks: int
) -> None:
    environment: Any = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    program = subprocess.Popen(
        [sys.executable, "-c", AS_A_PROGRAM, *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=environment,
    )  # fmt: skip
    assert program.stdout is not None and "torch is loaded" in program.stdout.readline()
    workers: list[psutil.Process] = []
    limit = time.monotonic() + HANG
    while len(workers) < ranks:
        assert program.poll() is None and time.monotonic() < limit
        workers = workers_of(psutil.Process(program.pid))
        time.sleep(0.01)
    program.send_signal(signal.SIGINT)
    _, said = program.communicate(timeout=HANG)
    assert program.returncode == 130, said
    assert said.endswith("Interrupted: all ranks have stopped, nothing was written.\n")
    assert "Traceback" not in said
    assert not any(worker.is_running() for worker in workers)
    assert not list(tmp_path.iterdir())
