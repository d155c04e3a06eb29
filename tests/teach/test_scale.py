"""The scale of the course: read from the environment, and only there."""

from __future__ import annotations

import pytest

from spnb.teach import scale


@pytest.mark.parametrize(("word", "value"), [("ci", 1), ("laptop", 2), ("node", 3)])
def test_the_value_of_the_scale_is_picked(
    monkeypatch: pytest.MonkeyPatch, word: str, value: int
) -> None:
    monkeypatch.setenv("SPNB_SCALE", word)
    assert scale.name() == word
    assert scale.pick(ci=1, laptop=2, node=3) == value


def test_without_a_word_it_is_the_laptop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPNB_SCALE", raising=False)
    assert scale.name() == "laptop"
    monkeypatch.setenv("SPNB_SCALE", "node")
    assert scale.pick(ci=1, laptop=2) == 2


def test_another_word_is_refused_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPNB_SCALE", "huge")
    with pytest.raises(ValueError, match="SPNB_SCALE='huge' is no scale: set it to ci, laptop"):
        scale.pick(ci=1, laptop=2)
