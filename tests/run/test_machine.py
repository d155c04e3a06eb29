"""Machines and links: numbers that cannot be are refused where they are given."""

from __future__ import annotations

from dataclasses import replace
from math import inf, nan

import numpy as np
import pytest

import spnb
from spnb.run.machine import Link

H100 = spnb.machines.H100
TIMES = ("launch", "draw", "noise", "update", "per_sample", "per_step")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, value) for name in TIMES for value in (-1e-9, nan, inf)),
        *(("flops", value) for value in (0, -1, nan)),
        *(("memory", value) for value in (0, -1, nan)),
        *(("crowding", value) for value in (0.5, nan, inf)),
        *(("ranks_per_host", value) for value in (0, -1)),
    ],
)
def test_numbers_that_cannot_be(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name}={value} must be "):
        replace(H100, **{name: value})


@pytest.mark.parametrize("name", [*TIMES, "flops", "memory", "crowding", "ranks_per_host"])
@pytest.mark.parametrize("value", ["1", True, [1.0]])
def test_what_is_no_number(name: str, value: object) -> None:
    with pytest.raises(TypeError, match=f"{name}=.* must be a "):
        replace(H100, **{name: value})


def test_noise_is_a_part_of_drawing() -> None:
    with pytest.raises(ValueError, match=r"noise=2e-09 is more than draw=1e-09"):
        replace(H100, draw=1e-9, noise=2e-9)


def test_what_may_be_unknown_or_endless() -> None:
    free = replace(H100, memory=None, between=None, flops=inf, ranks_per_host=np.int64(4))
    assert free.link(4) == H100.inside
    assert Link(0.0, inf).all_reduce(1e9, 8) == 0.0


@pytest.mark.parametrize(
    ("latency", "bandwidth"), [(-1.0, 1.0), (nan, 1.0), (inf, 1.0), (0.0, 0.0), (0.0, nan)]
)
def test_links_that_cannot_be(latency: float, bandwidth: float) -> None:
    with pytest.raises(ValueError, match=r"(latency|bandwidth)=.* must be "):
        Link(latency, bandwidth)


def test_a_link_is_a_link() -> None:
    for wrong in ({"inside": 1e9}, {"inside": None}, {"between": "NVLINK"}):
        with pytest.raises(TypeError, match=r"must be links, such as spnb\.machines\.NVLINK_4"):
            replace(H100, **wrong)


@pytest.mark.parametrize("name", ["tflops", "tb_per_s", "gb"])
def test_data_sheets_have_positive_figures(name: str) -> None:
    figures = {"tflops": 100.0, "tb_per_s": 2.0, "gb": 80.0}
    link = spnb.machines.NVLINK_4
    made = spnb.machines.gpu("own", "here", **figures, inside=link, between=link)
    assert made.memory == 80e9
    for value in (0.0, -1.0, nan):
        with pytest.raises(ValueError, match=f"{name}={value} must be above 0"):
            spnb.machines.gpu("own", "here", **figures | {name: value}, inside=link, between=link)
