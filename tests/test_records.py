"""What pages and figures say of measurements is what their records in ``docs`` hold."""

from __future__ import annotations

import copy

import pytest

from benchmarks import pages

RECORDS = pages.records()


@pytest.mark.parametrize("name", pages.PAGES)
def test_a_page_says_what_its_records_hold(name: str) -> None:
    text = (pages.ROOT / name).read_text("utf-8")
    assert pages.written(text, RECORDS) == text, "run: python -m benchmarks.pages"


@pytest.mark.parametrize("name", sorted(set(pages.FIGURES) & set(RECORDS)))
def test_a_figure_was_drawn_from_its_record(name: str) -> None:
    drawn_from = pages.digest_of(pages.ROOT / "docs" / f"{name}.png")
    assert drawn_from == pages.digest(RECORDS[name]), "run: python -m benchmarks.pages"


def test_another_record_is_noticed() -> None:
    changed = copy.deepcopy(RECORDS)
    changed["regression"]["scores"]["linear"]["rmse"] += 10.0
    text = (pages.ROOT / "docs/methods.md").read_text("utf-8")
    assert pages.written(text, changed) != text
    assert pages.digest(changed["regression"]) != pages.digest(RECORDS["regression"])


def test_a_mark_that_nobody_knows_is_refused() -> None:
    nobody, open_one = "<!-- nobody -->1<!-- /nobody -->", "<!-- regression -->1"
    for page, words in ((nobody, "nobody"), (open_one, "closed")):
        with pytest.raises(ValueError, match=words):
            pages.written(page, RECORDS)
