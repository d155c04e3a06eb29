"""Devices are chosen from counts alone, which are patched here: there need not be a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from spnb.parallel import devices
from spnb.parallel.pool.options import check_size


@pytest.fixture(autouse=True)
def _no_wish(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(devices.DEVICE_VARIABLE, raising=False)


def see_gpus(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(devices, "visible_gpus", lambda: count)


def test_a_gpu_each(monkeypatch: pytest.MonkeyPatch) -> None:
    see_gpus(monkeypatch, 4)
    assert devices.choose(3, 4) == (torch.device("cuda:3"), "nccl")
    assert devices.choose(0, 1) == (torch.device("cuda:0"), "nccl")


def test_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    see_gpus(monkeypatch, 0)
    assert devices.choose(1, 2) == (torch.device("cpu"), "gloo")


@pytest.mark.parametrize(
    ("gpus", "device", "ranks"), [(4, None, 4), (4, "cuda", 4), (4, "cpu", 16), (0, None, 16)]
)
def test_a_pool_has_a_worker_for_each_gpu_or_core(
    monkeypatch: pytest.MonkeyPatch, gpus: int, device: str | None, ranks: int
) -> None:
    see_gpus(monkeypatch, gpus)
    monkeypatch.setattr(devices, "usable_cores", lambda: 16)
    assert check_size(None, device) == ranks
    assert check_size(3, device) == 3
    with pytest.raises(
        ValueError, match=f"one for each {'GPU' if ranks == 4 else 'core'}, {ranks} h"
    ):
        check_size(0, device)


def test_too_few_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    see_gpus(monkeypatch, 2)
    with pytest.warns(UserWarning, match="4 ranks need 4 GPUs, but 2 can be seen"):
        assert devices.choose(0, 4) == (torch.device("cpu"), "gloo")
    monkeypatch.setenv(devices.DEVICE_VARIABLE, "cuda")
    with pytest.raises(RuntimeError, match="use at most 2 ranks"):
        devices.choose(0, 4)
    assert devices.choose(0, 2)[0].type == "cuda"
    see_gpus(monkeypatch, 0)
    with pytest.raises(RuntimeError, match=r"but 0 can be seen: use SPNB_DEVICE=cpu\."):
        devices.choose(0, 1)


def test_the_wish_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    see_gpus(monkeypatch, 2)
    monkeypatch.setenv(devices.DEVICE_VARIABLE, "cpu")
    assert devices.choose(0, 2)[1] == "gloo"
    monkeypatch.setenv(devices.DEVICE_VARIABLE, "tpu")
    with pytest.raises(ValueError, match="'tpu' is not a device"):
        devices.choose(0, 2)


def test_counting_does_not_initialise_cuda() -> None:
    devices.visible_gpus()
    assert not torch.cuda.is_initialized()


def test_cores_follow_the_affinity() -> None:
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); "
        "from spnb.parallel import devices; "
        "print(devices.usable_cores(), devices.threads_per_rank(4))"
    )
    out = subprocess.check_output(
        [sys.executable, "-c", code],
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert out == "1 1\n"


def test_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "usable_cores", lambda: 16)
    assert [devices.threads_per_rank(n) for n in (1, 4, 5, 40)] == [16, 4, 3, 1]


@pytest.mark.parametrize(
    ("me", "files", "quota"),
    [
        ("0::/job/step", {"job/cpu.max": "250000 100000", "job/step/cpu.max": "max 100000"}, 2.5),
        ("0::/", {"cpu.max": "50000 100000"}, 0.5),
        ("0::/", {"cpu.max": "max 100000"}, None),
        ("0::/", {}, None),
        (
            "3:cpu,cpuacct:/a\n2:memory:/b",
            {
                "cpu,cpuacct/a/cpu.cfs_quota_us": "300000",
                "cpu,cpuacct/a/cpu.cfs_period_us": "100000",
            },
            3.0,
        ),
        (
            "3:cpu,cpuacct:/",
            {"cpu,cpuacct/cpu.cfs_quota_us": "-1", "cpu,cpuacct/cpu.cfs_period_us": "100000"},
            None,
        ),
    ],
)
def test_cgroup_quota(tmp_path: Path, me: str, files: dict[str, str], quota: float | None) -> None:
    for name, text in files.items():
        (tmp_path / "fs" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "fs" / name).write_text(text + "\n")
    (tmp_path / "me").write_text(me + "\n")
    assert devices._cgroup_quota(tmp_path / "fs", tmp_path / "me") == quota


def test_small_shared_memory_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(devices, "NCCL_SHARED_MEMORY", 2**80)
    assert "NCCL may fail" in (devices.shared_memory_warning(str(tmp_path)) or "")
    monkeypatch.setattr(devices, "NCCL_SHARED_MEMORY", 0)
    assert devices.shared_memory_warning(str(tmp_path)) is None
    assert devices.shared_memory_warning("/no/such/place") is None


def test_freed_memory_is_kept() -> None:
    """The same large tensor again and again: its pages are mapped once, not each time."""
    code = """
import resource, torch
from spnb.parallel import devices
def faults():
    for _ in range(20):
        torch.empty(20_000_000).fill_(1.0)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def growth():
    before = faults()
    return faults() - before
plain = growth()
devices.keep_freed_memory()
faults()
print(plain, growth())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    plain, kept = map(int, done.stdout.split())
    assert plain > 100_000 and kept < 1_000
