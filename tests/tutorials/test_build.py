"""The notebooks are what their sources give, and the transformation does what it says."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import nbformat
import pytest

ROOT = Path(__file__).parents[2]

SOURCE = """\
# %% [markdown]
# # A title
#
# You will be able to:
#
# - average
#   gradients
# - count ranks

# %%
# %matplotlib inline
import math

# %% [markdown]
# ### Exercise 1 · difficulty 2/5 · 5 minutes
# Average.

# %% tags=["exercise"]
def average(total, world_size):
    # BEGIN SOLUTION
    # STUB: mean = ...  # divide
    mean = total / world_size
    # END SOLUTION
    return mean

# %% [markdown] tags=["hint"]
# Divide.

# %% [markdown] tags=["expected"]
# `2.0`

# %%
check.exercise_1(average)

# %% tags=["keep"]
pass

# %%
pass

# %% [markdown]
# ## You can now
#
# - average
#   gradients
# - count ranks
"""


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tutorials_build", ROOT / "tutorials/build.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


builder = load()


def test_the_committed_notebooks_are_in_step_with_their_sources() -> None:
    assert builder.drift() == [], "run `make notebooks`"


@pytest.mark.parametrize(
    "path", sorted((ROOT / "tutorials/sources").glob("[0-9]*.py")), ids=lambda path: path.stem
)
def test_each_source_keeps_the_conventions(path: Path) -> None:
    errors, _ = builder.review(path.read_text(encoding="utf-8"))
    assert errors == []


def test_learners_get_a_stub_and_three_folds() -> None:
    cells = builder.build(SOURCE, solution=False).cells
    exercise = next(i for i, cell in enumerate(cells) if "def average" in cell.source)
    assert cells[exercise].source == (
        "def average(total, world_size):\n    mean = ...  # divide\n    return mean"
    )
    folds = cells[exercise + 1]
    assert folds.cell_type == "markdown"
    order = [folds.source.index(f"<summary>{t}<") for t in ("Hint", "Expected output", "Solution")]
    assert order == sorted(order)
    assert "    mean = total / world_size\n    return mean\n```" in folds.source
    assert cells[exercise + 2].source == "check.exercise_1(average)"


def test_solutions_are_filled_in_and_have_no_solution_fold() -> None:
    cells = builder.build(SOURCE, solution=True).cells
    text = "\n".join(cell.source for cell in cells)
    assert "    mean = total / world_size\n    return mean" in text
    assert "<summary>Hint<" in text and "<summary>Solution<" not in text
    assert "STUB" not in text and "BEGIN SOLUTION" not in text


def test_notebooks_are_valid_bare_and_the_same_each_time() -> None:
    first, second = (builder.build(SOURCE, solution=False) for _ in range(2))
    assert nbformat.writes(first) == nbformat.writes(second)
    nbformat.validate(first)
    assert len({cell.id for cell in first.cells}) == len(first.cells)
    code = [cell for cell in first.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    assert [cell.metadata for cell in code if cell.metadata] == [{"tags": ["keep"]}]
    assert code[0].source.startswith("%matplotlib inline")


def test_a_new_cell_leaves_the_other_ids_alone() -> None:
    before = {cell.id for cell in builder.build(SOURCE, solution=False).cells}
    after = {cell.id for cell in builder.build("# %%\n1 + 1\n\n" + SOURCE, solution=False).cells}
    assert before < after


def test_a_region_without_stub_becomes_an_ellipsis() -> None:
    stub, solution = builder.split_solution(
        "def f():\n    # BEGIN SOLUTION\n    return 1\n    # END SOLUTION"
    )
    assert stub == "def f():\n    ..." and solution == "def f():\n    return 1"


@pytest.mark.parametrize(
    "code",
    [
        "x = 1",
        "# BEGIN SOLUTION\nx = 1",
        "x = 1\n# END SOLUTION",
        "# STUB: x = ...\nx = 1",
        "# BEGIN SOLUTION\n# BEGIN SOLUTION\nx = 1\n# END SOLUTION",
    ],
)
def test_broken_regions_are_refused(code: str) -> None:
    with pytest.raises(builder.SourceError):
        builder.split_solution(code)


@pytest.mark.parametrize(
    "source",
    [
        '# %% [markdown] tags=["hint"]\n# Without its exercise.\n',
        "# %%\n# BEGIN SOLUTION\nx = 1\n# END SOLUTION\n",
    ],
)
def test_misplaced_cells_are_refused(source: str) -> None:
    with pytest.raises(builder.SourceError):
        builder.build(source, solution=False)


def test_the_review_accepts_the_example() -> None:
    errors, warnings = builder.review(SOURCE)
    assert errors == []
    assert len(warnings) == 2  # few code cells, few exercises


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("# # A title", "# A title", "0 H1"),
        ("# ## You can now", "# # You can now", "2 H1"),
        ("# - count ranks\n\n", "# - count\n\n", "does not repeat"),
        ("You will be able to", "You will", "no list under"),
        ("· 5 minutes", "", "needs the heading"),
        ("Exercise 1", "Exercise 2", "needs the heading"),
        ('tags=["hint"]', "", "no hint cell"),
        ('tags=["expected"]', "", "no expected cell"),
        ("check.exercise_1(average)", "average(6, 3)", "is not checked"),
        ("# Average.", "# ![](figure.svg)", "without alt text"),
        ("# Average.", '# <img src="figure.svg">', "without alt text"),
    ],
)
def test_the_review_names_what_is_wrong(old: str, new: str, says: str) -> None:
    assert old in SOURCE
    errors, _ = builder.review(SOURCE.replace(old, new, 1))
    assert any(says in error for error in errors), errors


def test_long_cells_are_only_warned_of() -> None:
    errors, warnings = builder.review(SOURCE.replace("import math", "import math\n" * 26))
    assert errors == [] and any("26 lines" in w or "27 lines" in w for w in warnings)


def test_the_command_writes_and_then_finds_drift(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "sources").mkdir()
    (tmp_path / "sources/00_one.py").write_text(SOURCE, encoding="utf-8")
    assert builder.main(["--check"], tmp_path) == 1
    assert builder.main([], tmp_path) == 0
    assert builder.main(["--check"], tmp_path) == 0

    capsys.readouterr()
    (tmp_path / "00_one.ipynb").write_text("{}", encoding="utf-8")
    (tmp_path / "solutions/07_gone.ipynb").write_text("{}", encoding="utf-8")
    assert builder.main(["--check"], tmp_path) == 1
    assert "00_one.ipynb is out of step" in (said := capsys.readouterr().err)
    assert "solutions/07_gone.ipynb is out of step" in said

    (tmp_path / "sources/00_one.py").write_text("# %%\n# BEGIN SOLUTION\n", encoding="utf-8")
    assert builder.main([], tmp_path) == 1
    assert "00_one.py: solution marks" in capsys.readouterr().err
