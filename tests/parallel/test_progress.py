"""Progress without a pool: a line in a terminal, nothing in a pipe."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SCRIPT = """
from spnb.parallel import progress
for step in range(1, 101):
    progress.report(step, 100, loss=1 / step)
"""


def stderr_of(script: str, terminal: bool, **environment: str) -> str:
    """What a script writes to its standard error, a terminal or a pipe."""
    reader, writer = os.openpty() if terminal else os.pipe()
    with subprocess.Popen(
        [sys.executable, "-c", script], stderr=writer, cwd=ROOT, env=os.environ | environment
    ) as process:
        os.close(writer)
        seen = b""
        while True:
            try:
                part = os.read(reader, 4096)
            except OSError:  # how a terminal says that nobody writes any more
                break
            if not part:
                break
            seen += part
    os.close(reader)
    assert process.returncode == 0, seen
    return seen.decode()


def test_a_terminal_shows_one_line_that_ends_at_the_last_step() -> None:
    seen = stderr_of(SCRIPT, terminal=True)
    assert seen.startswith("\r")
    assert "step 100/100  loss 0.01" in seen
    assert seen.count("\n") == 1 and seen.endswith("\n")


def test_a_pipe_and_other_ranks_stay_quiet() -> None:
    assert stderr_of(SCRIPT, terminal=False) == ""
    assert stderr_of(SCRIPT, terminal=True, RANK="1") == ""
