"""The doctor: looks at a machine before one relies on it, and says in words what to do.

``python -m spnb.doctor`` takes some ten seconds. It looks at versions, cores, memory and devices,
at shared memory, disks and ports, at what the environment says; it starts two ranks, has them add
up numbers, small and large, and compares one gradient with that of one process; and it sees which
data sets are there. No finding needs a GPU, and the process itself touches none.
"""

from __future__ import annotations

import html
import json
import os
import platform
import shutil
import socket
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version

import torch

from spnb.parallel import devices
from spnb.teach import trial
from spnb.teach.datasets import DataUnavailableError, files, known_files
from spnb.teach.passport import GIB, usable_memory

GOOD, HINT, BAD = "ok", "hint", "trouble"
MARKS = {GOOD: "✓", HINT: "!", BAD: "✗"}
PACKAGES = ("torch", "pyro-ppl", "numpy", "ipywidgets", "jupyterlab", "matplotlib", "safetensors")
LEFT_BY_LAUNCHERS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: what.
        value: what was found.
        verdict: ``"ok"``, ``"hint"`` (it works, but) or ``"trouble"``.
        advice: what to do about it, a sentence; empty if there is nothing to do.
    """

    name: str
    value: str
    verdict: str = GOOD
    advice: str = ""


@dataclass(frozen=True)
class Report:
    """What the doctor found.

    Attributes:
        findings: in the order in which they were made.
        seconds: how long it took.
    """

    findings: tuple[Finding, ...]
    seconds: float

    @property
    def healthy(self) -> bool:
        """Whether nothing is in trouble."""
        return all(finding.verdict != BAD for finding in self.findings)

    @property
    def summary(self) -> str:
        """One sentence."""
        count = {v: sum(f.verdict == v for f in self.findings) for v in MARKS}
        if not self.healthy:
            return f"Trouble in {count[BAD]} of {len(self.findings)} findings: see the advice."
        hints = f", {count[HINT]} with a hint" if count[HINT] else ""
        return f"All well: {len(self.findings)} findings{hints}, in {self.seconds:.0f} s."

    def as_json(self) -> str:
        """Everything, for a machine to read."""
        return json.dumps(asdict(self) | {"healthy": self.healthy}, indent=1)

    def __str__(self) -> str:
        """A table, and the advice under what it is about."""
        width = max(len(finding.name) for finding in self.findings)
        lines = []
        for finding in self.findings:
            lines.append(f"{MARKS[finding.verdict]} {finding.name:<{width}}  {finding.value}")
            if finding.advice:
                lines.append(f"  {'':<{width}}  → {finding.advice}")
        return "\n".join([*lines, "", self.summary])

    def _repr_html_(self) -> str:
        rows = []
        for f in self.findings:
            advice = f"<br><i>→ {html.escape(f.advice)}</i>" if f.advice else ""
            rows.append(
                f'<tr style="background: none"><td><span role="img" aria-label="{f.verdict}">'
                f"{MARKS[f.verdict]}</span></td>"
                f'<th scope="row" style="text-align: left">{html.escape(f.name)}</th>'
                f'<td style="text-align: left">{html.escape(f.value)}{advice}</td></tr>'
            )
        return (
            f"<p><b>{html.escape(self.summary)}</b></p>"
            f'<table style="color: inherit">{"".join(rows)}</table>'
        )


def examine(ranks: int = 2) -> Report:
    """Look at everything.

    Args:
        ranks: how many worker processes to try.
    """
    begun = time.monotonic()
    findings: list[Finding] = []
    for look in LOOKS:
        try:
            findings += look(ranks)
        except Exception as error:  # a doctor who falls ill helps nobody
            name = look.__name__.strip("_").replace("_", " ")
            findings.append(Finding(name, f"{type(error).__name__}: {error}", BAD, "Report this."))
    return Report(tuple(findings), time.monotonic() - begun)


def _versions(ranks: int) -> Iterator[Finding]:
    enough = sys.version_info >= (3, 11)
    advice = "" if enough else "Python 3.11 or newer is needed."
    where = f"{platform.python_version()} ({sys.prefix})"
    yield Finding("python", where, GOOD if enough else BAD, advice)
    found, missing = [], []
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    advice = f"Not installed: {', '.join(missing)}; see the README." if missing else ""
    yield Finding("packages", ", ".join(found), BAD if missing else GOOD, advice)


def _cores_and_threads(ranks: int) -> Iterator[Finding]:
    cores = devices.usable_cores()
    few = f"{ranks} ranks share {cores} core{'s'[: cores != 1]}: the same results, later."
    yield Finding(
        "cores",
        f"{cores} usable, {devices.threads_per_rank(ranks)} a rank of {ranks}",
        *((GOOD, "") if cores >= ranks else (HINT, few)),
    )


def _memory(ranks: int) -> Iterator[Finding]:
    memory = usable_memory()
    if memory is None:
        yield Finding("memory", "the system does not tell", HINT)
        return
    enough = memory >= 1 + 0.75 * ranks
    advice = "" if enough else f"{ranks} ranks and a notebook like {1 + 0.75 * ranks:.1f} GiB."
    yield Finding("memory", f"{memory:.1f} GiB", GOOD if enough else HINT, advice)


def _devices(ranks: int) -> Iterator[Finding]:
    gpus = devices.visible_gpus()
    built = torch.version.cuda
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        device, backend = devices.choose(0, ranks)
    value = f"{gpus} GPUs seen; {ranks} ranks compute on {device.type}, talking through {backend}"
    advice = ""
    if not gpus and shutil.which("nvidia-smi"):
        advice = (
            "nvidia-smi is here, but this torch is built without CUDA: install the CUDA build."
            if built is None
            else f"nvidia-smi is here, but torch (CUDA {built}) sees no GPU: driver too old, or "
            "CUDA_VISIBLE_DEVICES is empty."
        )
    elif 0 < gpus < ranks:
        advice = f"With {gpus} rank{'s'[: gpus != 1]} each would have a GPU."
    yield Finding("devices", value, HINT if advice else GOOD, advice)


def _shared_memory(ranks: int) -> Iterator[Finding]:
    if not os.path.isdir("/dev/shm"):
        yield Finding("/dev/shm", "not there", HINT, "NCCL needs it; worker pools do without.")
        return
    free = shutil.disk_usage("/dev/shm").free
    advice = devices.shared_memory_warning() or ""
    yield Finding("/dev/shm", f"{free / 2**20:.0f} MiB free", HINT if advice else GOOD, advice)


def _disk(ranks: int) -> Iterator[Finding]:
    for name, folder in (("folder", os.getcwd()), ("temporary files", tempfile.gettempdir())):
        try:
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            advice = "Start in a folder of your own, or set TMPDIR."
            yield Finding(name, f"{folder}: {error.strerror}", BAD, advice)
            continue
        free = shutil.disk_usage(folder).free / GIB
        advice = "" if free > 1 else "Checkpoints and data sets need room."
        yield Finding(name, f"{folder}, {free:.0f} GiB free", HINT if advice else GOOD, advice)


def _ports(ranks: int) -> Iterator[Finding]:
    try:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            address = listener.getsockname()
            with socket.create_connection(address, timeout=2):
                pass
        yield Finding("ports", "connections within the machine work")
    except OSError as error:
        advice = "Ranks meet on 127.0.0.1: a firewall or container forbids it."
        yield Finding("ports", str(error), BAD, advice)
    name = socket.gethostname()
    try:
        yield Finding("host name", f"{name} is {socket.gethostbyname(name)}")
    except OSError:
        advice = "For several nodes set GLOO_SOCKET_IFNAME (and NCCL_SOCKET_IFNAME); see docs."
        yield Finding("host name", f"{name} has no address", HINT, advice)


def _environment(ranks: int) -> Iterator[Finding]:
    left = [name for name in LEFT_BY_LAUNCHERS if name in os.environ]
    if left:
        advice = f"Unset {', '.join(left)}: this process would wait for ranks that never come."
        yield Finding("environment", "variables of a launcher are set", HINT, advice)
    else:
        yield Finding("environment", "no launcher's variables are set")
    threads = os.environ.get("OMP_NUM_THREADS")
    if threads and threads.isdigit() and int(threads) > devices.usable_cores():
        advice = f"There are {devices.usable_cores()} cores: more threads wait for each other."
        yield Finding("threads", f"OMP_NUM_THREADS={threads}", HINT, advice)


def _two_ranks(ranks: int) -> Iterator[Finding]:
    found = trial.of_ranks(ranks)
    yield Finding("worker pool", f"{ranks} ranks started in {found.start:.1f} s")
    yield Finding(
        "all-reduce",
        f"{found.small * 1e6:.0f} µs for 4 bytes, {found.bandwidth / 1e9:.2f} GB/s "
        f"({found.way}, {found.device})",
    )
    close = found.difference <= 1e-5
    value = f"a gradient of {ranks} ranks differs from one process by {found.difference:.0e}"
    advice = "" if close else "Ranks compute something else: report this with the versions above."
    yield Finding("same results", value, GOOD if close else BAD, advice)


def _data_sets(ranks: int) -> Iterator[Finding]:
    try:
        found = {file.name: files.present(file) for file in known_files()}
    except DataUnavailableError as error:
        yield Finding("data sets", "not looked for", HINT, str(error))
        return
    there, away = ([name for name, here in found.items() if here is so] for so in (True, False))
    words = f"{len(there)} of {len(there) + len(away)} files found"
    advice = f"Fetched, or replaced by a stand-in, when needed: {', '.join(away)}." if away else ""
    yield Finding("data sets", words, HINT if away else GOOD, advice)


LOOKS: tuple[Callable[[int], Iterator[Finding]], ...] = (
    _versions,
    _cores_and_threads,
    _memory,
    _devices,
    _shared_memory,
    _disk,
    _ports,
    _environment,
    _two_ranks,
    _data_sets,
)
