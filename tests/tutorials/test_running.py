"""How notebooks are run by the tests: what `tests/support/notebooks.py` promises."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from queue import Empty
from time import monotonic

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook
from nbmake.nb_run import NotebookRun

ROOT = Path(__file__).parents[2]

SLIDER = """
import ipywidgets as widgets
slider = widgets.IntSlider(max=1000)
out = widgets.interactive_output(lambda k: print("k =", k), {"k": slider})
widgets.VBox([slider, out])
"""


def write(path: Path, *cells: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(new_notebook(cells=[new_code_cell(cell) for cell in cells]), path)
    return path


@pytest.mark.kernel
@pytest.mark.slow
def test_cells_that_move_a_slider_do_not_hang(tmp_path: Path) -> None:
    moves = [f"for k in range(5): slider.value = {10 * i} + k" for i in range(1, 31)]
    path = write(tmp_path / "slider.ipynb", SLIDER, *moves)
    start = monotonic()
    result = NotebookRun(path, default_timeout=600).execute()
    assert result.error is None
    assert monotonic() - start < 600  # one missed reply alone would have taken so long


def test_the_client_asks_for_its_reply_in_slices() -> None:
    ours = NotebookClient.async_start_new_kernel_client.__code__.co_filename
    assert Path(ours) == ROOT / "tests" / "support" / "notebooks.py"


def test_a_sliced_wait_finds_a_late_message_and_keeps_its_deadline(
    request: pytest.FixtureRequest,
) -> None:
    plugins = request.config.pluginmanager.get_plugins()
    (notebooks,) = [plugin for plugin in plugins if hasattr(plugin, "in_slices")]
    waits: list[float] = []

    async def get_msg(timeout: float) -> str:
        waits.append(timeout)
        if len(waits) == 3:
            return "late"
        await asyncio.sleep(0.01)
        raise Empty

    assert asyncio.run(notebooks.in_slices(get_msg)(timeout=None)) == "late"
    assert waits == [notebooks.POLL_SECONDS] * 3
    with pytest.raises(Empty):
        asyncio.run(notebooks.in_slices(get_msg)(timeout=0.05))


@pytest.mark.kernel
@pytest.mark.slow
def test_notebooks_get_their_environment(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text((ROOT / "conftest.py").read_text("utf-8"), "utf-8")
    show = "import os; scale, checks = map(os.environ.get, ('SPNB_SCALE', 'SPNB_CHECKS'))"
    write(tmp_path / "a.ipynb", show, "assert scale and checks is None")
    write(tmp_path / "solutions/a.ipynb", show, "assert scale and checks == 'strict'")
    write(tmp_path / "solutions/b.ipynb", "assert False, 'failed on purpose'")
    command = [sys.executable, "-m", "pytest", "--nbmake", "-q", "-p", "no:cacheprovider", "."]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert "1 failed, 2 passed" in done.stdout, done.stdout
    assert "failed on purpose" in done.stdout
