"""Machines that are not here: constants from data sheets, for planning ahead.

Peak figures are the vendors'; `EFFICIENCY` says what part of them a training step is taken to
reach. That part, the latencies and the time of a kernel launch are assumptions, within a factor of
two or so of what is commonly reported: such a plan tells which layout is promising, and not the
time of a step to ten percent. Nothing here was run.
"""

from __future__ import annotations

from spnb.parallel.arguments import real
from spnb.run.machine import Link, Machine

EFFICIENCY = 0.4
"""Assumed part of the peak that matrix products and transfers reach."""

LAUNCH = 5e-6
"""Assumed seconds for a tensor operation however small, launch and scheduling."""

#: GB/s of one direction for each GPU; latencies of a hop as seen by a collective are assumptions
NVLINK_3 = Link(latency=10e-6, bandwidth=300e9 * EFFICIENCY)  # NVIDIA A100: 600 GB/s both ways
NVLINK_4 = Link(latency=10e-6, bandwidth=450e9 * EFFICIENCY)  # NVIDIA H100: 900 GB/s both ways
PCIE_4 = Link(latency=20e-6, bandwidth=32e9 * EFFICIENCY)  # PCI-SIG: 16 lanes of 16 GT/s
INFINIBAND_HDR = Link(latency=20e-6, bandwidth=25e9 * EFFICIENCY)  # IBTA: 200 Gb/s
INFINIBAND_NDR = Link(latency=20e-6, bandwidth=50e9 * EFFICIENCY)  # IBTA: 400 Gb/s
ETHERNET_10 = Link(latency=50e-6, bandwidth=1.25e9 * EFFICIENCY)  # IEEE 802.3ae: 10 Gb/s

_TOUCHED = 4 * 14
"""Bytes that drawing a weight and bringing its gradient back read and write, in float32."""
_NOISE = 4
"""Bytes of these that the random numbers themselves take."""
_UPDATED = 4 * 20
"""Bytes that the update of a weight reads and writes: two parameters, gradients, moments."""


def gpu(
    name: str, source: str, tflops: float, tb_per_s: float, gb: float, inside: Link, between: Link
) -> Machine:
    """A machine of GPUs, eight a host, from the figures of a data sheet.

    Args:
        name: what it is called.
        source: the data sheet.
        tflops: peak of matrix products in the precision that training uses, in 1e12 a second.
        tb_per_s: bandwidth of its memory, in 1e12 bytes a second.
        gb: its memory, in 1e9 bytes.
        inside: link between GPUs of a host.
        between: link between hosts, of each GPU.

    Raises:
        TypeError: a figure is no number, a link no link.
        ValueError: a figure is not positive.
    """
    for argument, value in {"tflops": tflops, "tb_per_s": tb_per_s, "gb": gb}.items():
        real(argument, value, above=True)
    memory_rate = tb_per_s * 1e12 * EFFICIENCY
    return Machine(
        name=name,
        source=source,
        flops=tflops * 1e12 * EFFICIENCY,
        launch=LAUNCH,
        draw=_TOUCHED / memory_rate,
        noise=_NOISE / memory_rate,
        update=_UPDATED / memory_rate,
        per_sample=20 * LAUNCH,
        per_step=100 * LAUNCH,
        inside=inside,
        between=between,
        ranks_per_host=8,
        memory=gb * 1e9,
    )


A100 = gpu(
    "A100 80 GB SXM, NVLink 3, InfiniBand HDR",
    "NVIDIA A100 Tensor Core GPU data sheet (2021): TF32 156 TFLOP/s, 2.0 TB/s, 80 GB",
    156,
    2.0,
    80,
    NVLINK_3,
    INFINIBAND_HDR,
)
H100 = gpu(
    "H100 80 GB SXM, NVLink 4, InfiniBand NDR",
    "NVIDIA H100 Tensor Core GPU data sheet (2023): TF32 495 TFLOP/s, 3.35 TB/s, 80 GB",
    495,
    3.35,
    80,
    NVLINK_4,
    INFINIBAND_NDR,
)
