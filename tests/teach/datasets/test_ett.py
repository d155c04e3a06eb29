"""ETTh1: its hours, columns and values."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pandas as pd
import pytest
import torch

from spnb.teach.datasets import ett, etth1


def test_every_hour_and_column_of_the_file(real: Path) -> None:
    table = etth1()
    assert table.values.shape == (17_420, 7) and table.values.dtype == torch.float64
    assert table.names == ("HUFL", "HULL", "MUFL", "MULL", "LUFL", "LULL", "OT")
    assert table.values.isfinite().all()
    frame = pd.read_csv(real / ett.FILE.name, parse_dates=["date"])
    assert table.start == frame["date"][0] == datetime(2016, 7, 1)
    assert (frame["date"].diff().dropna() == pd.Timedelta(hours=1)).all()
    assert torch.equal(table.values, torch.tensor(frame[list(table.names)].to_numpy()))
    assert torch.equal(table.column("OT"), table.values[:, 6])
    assert table.column("OT")[0].item() == pytest.approx(30.531, abs=1e-3)
    assert repr(table) == "Table(17,420 hours of HUFL, HULL, MUFL, MULL, LUFL, LULL, OT)"


def test_an_unknown_column_is_refused(real: Path) -> None:
    with pytest.raises(ValueError, match="no column 'oil'; there are HUFL, .*, OT"):
        etth1().column("oil")
