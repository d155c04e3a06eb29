"""Explorables: they follow their controls, in picture and words, and survive errors."""

from __future__ import annotations

from threading import Thread

import pytest
from ipywidgets import Dropdown, FloatSlider
from matplotlib.figure import Figure

from spnb.teach.explorable import Explorable
from spnb.teach.figures import FAST_DPI, png


def draw(figure: Figure, noise: float, method: str) -> str:
    if method == "broken":
        raise ZeroDivisionError("no samples\nleft <over>")
    figure.subplots().plot([0, 1], [0, noise])
    return f"The line of {method} ends at {noise:.1f} ppm."


def make(**options: object) -> Explorable:
    return Explorable(
        "toy",
        draw,
        noise=FloatSlider(0.5, min=0.0, max=2.0, step=0.5),
        method=Dropdown(options=["mean field", "NUTS", "broken"]),
        **options,  # type: ignore[arg-type]
    )


def test_the_figure_is_there_before_any_control_is_touched() -> None:
    toy = make()
    bundle = toy._repr_mimebundle_()
    assert toy.png.startswith(b"\x89PNG") and toy.redraws == 1
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert 'alt="The line of mean field ends at 0.5 ppm."' in bundle["text/html"]
    assert bundle["text/plain"] == repr(toy) == "The line of mean field ends at 0.5 ppm."


def test_picture_and_words_follow_the_controls() -> None:
    toy = make()
    before = toy.png
    toy.controls["noise"].value = 1.5
    assert toy.png != before
    assert toy.summary == "The line of mean field ends at 1.5 ppm."
    assert toy.summary in toy._picture.value and toy.summary in toy._summary.value
    assert toy.last_ms > 0 and f'data-ms="{toy.last_ms:.0f}"' in toy._picture.value
    assert len(toy.figure.axes[0].lines) == 1, "what was drawn is taken away"


def test_several_controls_move_at_once() -> None:
    toy = make()
    toy.set(noise=2.0, method="NUTS")
    assert toy.redraws == 2
    assert toy.state == {"noise": 2.0, "method": "NUTS"}
    toy.set(noise=2.0)
    assert toy.redraws == 2, "nothing changed"
    toy.controls["noise"].value = 1.0
    assert toy.redraws == 3, "and the controls are listened to again"
    with pytest.raises(KeyError, match="'nois' is none of the controls noise, method"):
        toy.set(nois=1.0)


def test_an_error_is_one_sentence_and_the_next_setting_recovers() -> None:
    toy = make()
    picture = toy._picture.value
    toy.controls["method"].value = "broken"
    assert toy.error == "ZeroDivisionError: no samples left <over>"
    assert "no samples left &lt;over&gt;" in toy._summary.value
    assert toy._picture.value == picture
    toy.controls["method"].value = "NUTS"
    assert toy.error is None and "NUTS" in toy._summary.value


def test_an_error_at_the_first_drawing_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        Explorable("toy", draw, noise=FloatSlider(), method=Dropdown(options=["broken"]))


def test_each_part_can_be_selected_by_its_class() -> None:
    toy = make()
    assert "spnb-toy" in toy.widget._dom_classes
    assert "spnb-toy-noise" in toy.controls["noise"]._dom_classes
    assert "spnb-toy-picture" in toy._picture._dom_classes


@pytest.mark.parametrize("live", [True, False])
def test_sliders_act_while_dragged_or_when_let_go(live: bool) -> None:
    assert make(continuous_update=live).controls["noise"].continuous_update is live


def test_what_takes_seconds_is_announced() -> None:
    toy = make(notice=lambda noise, method: "This takes 3 s ..." if noise > 1 else None)
    said: list[str] = []
    toy._summary.observe(lambda change: said.append(change["new"]), names="value")
    toy.set(noise=1.0)
    toy.set(noise=2.0)
    assert ["takes 3 s" in sentence for sentence in said] == [False, True, False]


def test_controls_may_be_heard_in_several_threads_at_once() -> None:
    """As by kernels that hear each control in a thread of its own."""
    toy = make()

    def move(control: str, values: list[object]) -> None:
        for value in values:
            toy.controls[control].value = value

    threads = [
        Thread(target=move, args=("noise", [0.0, 0.5, 1.0, 1.5] * 10)),
        Thread(target=move, args=("method", ["NUTS", "mean field"] * 20)),
    ]
    errors: list[str | None] = []
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        errors.append(toy.error)
        with toy.quiet():  # what others move meanwhile is drawn all the same
            pass
    assert not any(errors)
    assert toy.state == {"noise": 1.5, "method": "mean field"}
    assert toy.summary == "The line of mean field ends at 1.5 ppm."


def test_axes_stay_and_the_picture_is_as_of_a_new_figure() -> None:
    """Byte by byte, whatever was drawn before: lines, limits, legend, a second pair of axes."""

    def several(figure: Figure, kind: str) -> str:
        if kind == "none":
            figure.text(0.5, 0.5, "nothing to show")
            return kind
        if kind == "two":
            for axes in figure.subplots(1, 2):
                axes.fill_between([0, 1], [2, 3])
            return kind
        axes = figure.subplots()
        if kind == "named":
            axes.set(title=kind, xlabel="x", yticks=[0, 1], yticklabels=["low", "high"])
            axes.yaxis.set_inverted(True)
        if kind == "no ticks":
            axes.set(xticks=[])
        axes.plot([0, 1], [0, 1e3 if kind == "large" else 1], label=kind)
        if kind == "limits":
            axes.set_ylim(0, 9)
        if kind == "legend":
            axes.bar([0.5], [0.5], label="bar")
            axes.legend()
            figure.text(0.5, 0.5, "words")
        if kind == "bar":
            figure.colorbar(axes.imshow([[0, 1]]), ax=axes)
        if kind == "log":
            axes.set_xlim(0.1, 3)
        return kind

    kinds = ["plain", "two", "limits", "large", "legend", "bar", "log", "none", "named", "no ticks"]
    toy = Explorable("toy", several, kind=Dropdown(options=kinds))
    fresh = {}
    for kind in kinds:
        figure = Figure(figsize=toy.figure.get_size_inches())
        several(figure, kind)
        fresh[kind] = png(figure, FAST_DPI)
    # There and back again between any two, so that each comes after each.
    walk = [kind for i, here in enumerate(kinds) for there in kinds[i:] for kind in (here, there)]
    for before, kind in zip(walk, [*walk[1:], kinds[0]], strict=True):
        kept = toy.figure.axes[0]
        toy.set(kind=kind)
        assert toy.png == fresh[kind], f"{kind} after {before}"
        if kind != before and not {"two", "bar", "none"} & {kind, before}:
            assert toy.figure.axes == [kept]
