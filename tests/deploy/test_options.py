"""What reaches a batch script comes from a list, whatever is sent."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
CHOICES = {"gpus": [1, 0, 2, 4, 8], "hours": [2, 1, 4, 8], "scale": ["laptop", "ci", "node"]}


@pytest.fixture(scope="module")
def options() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "spnb_hub_options", ROOT / "deploy/jupyterhub/options.py"
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("sent", "found"),
    [
        ({}, {"gpus": 1, "hours": 2, "scale": "laptop"}),
        (
            {"gpus": ["4"], "hours": ["1"], "scale": ["ci"]},
            {"gpus": 4, "hours": 1, "scale": "ci"},
        ),
        ({"gpus": 0, "scale": "node"}, {"gpus": 0, "hours": 2, "scale": "node"}),
    ],
)
def test_choices_come_through(
    options: ModuleType, sent: dict[str, Any], found: dict[str, Any]
) -> None:
    assert options.checked(sent, CHOICES) == found


@pytest.mark.parametrize(
    "sent",
    [
        {"cmd": "touch /tmp/mine"},
        {"prologue": "touch /tmp/mine"},
        {"gpus": "1\n#SBATCH --uid=0"},
        {"gpus": "1; touch /tmp/mine"},
        {"gpus": " 1"},
        {"gpus": "$(id)"},
        {"gpus": 3},
        {"gpus": -1},
        {"gpus": True},
        {"gpus": 1.0},
        {"gpus": None},
        {"gpus": ["1", "2"]},
        {"gpus": []},
        {"gpus": {"x": 1}},
        {"hours": "99999"},
        {"hours": "{{cmd}}"},
        {"scale": "ci\nexport PATH=/tmp"},
        {"scale": ["ci", "node"]},
        {"": ""},
        [("gpus", 1)],
        "gpus",
    ],
)
def test_everything_else_is_refused(options: ModuleType, sent: Any) -> None:
    with pytest.raises(ValueError, match="must be one of|There is no option|must have names"):
        options.checked(sent, CHOICES)


def test_the_form_has_a_label_for_each_list_and_escapes(options: ModuleType) -> None:
    page = options.form(CHOICES | {"room": ['"><script>']})
    for name in (*CHOICES, "room"):
        assert f'<label for="spnb-{name}">' in page and f'name="{name}"' in page
    assert "<script>" not in page and "&lt;script&gt;" in page
