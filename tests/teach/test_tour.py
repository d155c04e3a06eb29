"""The tour, as a newcomer starts it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from spnb.__main__ import main


@pytest.mark.slow
@pytest.mark.pool
def test_the_tour_trains_four_layouts_that_agree(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["tour", "--out", str(tmp_path / "out"), "--epochs", "4"])
    said = capsys.readouterr().out
    for word in ("serial", "sample=2 × data=2", "test acc", "kB/step", "Δ serial", "cores"):
        assert word in said
    assert (tmp_path / "out" / "tour.png").read_bytes().startswith(b"\x89PNG")
    record = json.loads((tmp_path / "out" / "tour.json").read_text())
    rows = record["rows"]
    assert [row["ranks"] for row in rows] == [1, 2, 2, 4]
    assert min(row["accuracy"] for row in rows) > 0.85
    assert max(row["difference"] for row in rows) < 1e-4
    assert rows[0]["bytes_per_step"] == 0
    assert rows[1]["bytes_per_step"] == pytest.approx(4 * 2 * 4810, rel=0.01)


def test_a_word_that_is_no_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["detour"])
    assert "invalid choice: 'detour'" in capsys.readouterr().err


def test_a_page_that_there_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["page", "weather"])
    assert capsys.readouterr().err == "'weather' is none of the pages: posterior, planner.\n"
