"""The hardware passport: complete, readable in three forms, and without touching a GPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import spnb
from spnb.parallel import devices
from spnb.teach.passport import passport, provenance, usable_memory


def test_it_says_what_the_pool_will_do() -> None:
    found = passport(2)
    device, backend = devices.choose(0, 2)
    assert (found.device, found.backend) == (device.type, backend)
    assert found.cores == devices.usable_cores()
    assert found.threads_per_rank == devices.threads_per_rank(2)
    assert found.versions["torch"] == torch.__version__
    assert found.versions["spnb"] == spnb.__version__


def test_three_forms_hold_the_same_entries() -> None:
    found = passport(3)
    assert json.loads(json.dumps(found.as_dict()))["ranks"] == 3
    for name, value, note in found.rows():
        assert name in str(found) and value in str(found)
        assert f">{value}<" in found._repr_html_()
        assert note in str(found)
    assert str(found).startswith("Hardware passport\n")
    assert all(line == line.rstrip() for line in str(found).splitlines())


def test_more_ranks_than_cores_is_said() -> None:
    assert "slower, same results" in str(passport(devices.usable_cores() + 1))
    with pytest.raises(ValueError, match="at least 1"):
        passport(0)


def test_memory_is_the_least_of_machine_and_container(tmp_path: Path) -> None:
    machine = usable_memory(limits=())
    limit = tmp_path / "memory.max"
    limit.write_text(f"{2**30}\n")
    assert usable_memory((str(limit), str(tmp_path / "absent"))) == 1.0
    limit.write_text("max\n")
    assert usable_memory((str(limit),)) == machine
    assert machine is None or machine > 0.1


def test_provenance_is_one_line_with_the_seed() -> None:
    line = provenance(17)
    assert "\n" not in line and line.endswith("seed 17") and torch.__version__ in line


def test_cuda_is_not_initialised() -> None:
    code = (
        "import torch; from spnb.teach.passport import passport; str(passport(2)); "
        "assert not torch.cuda.is_initialized()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
