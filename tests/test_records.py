"""What README and docs say of measurements is what the records hold.

Tables, and sentences between marks, are written anew by `benchmarks.pages` and compared. Other
sentences are put together here from the records, and have to stand in the text as they are.
"""

from __future__ import annotations

import ast
import json
import math
import re
import shutil
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import torch

import spnb
from benchmarks import at_scale, pages, record, spans
from benchmarks.measure import Timing
from spnb.maths.swin import SIZES, Swin
from spnb.run.footprint import footprint
from spnb.teach import figures, passport
from spnb.teach.explore.memory_budget import budget
from spnb.teach.recipes import weather
from spnb.teach.tour import Row as TourRow

ROOT = Path(__file__).parents[1]
FOUND = pages.records()
AUTHORS = (
    "Asena Karolin Özdemir",
    "Lars H. Heyen",
    "Arvid Weyrauch",
    "Achim Streit",
    "Markus Götz",
    "Charlotte Debus",
)


def text(name: str) -> str:
    """A page in one line."""
    return " ".join((ROOT / name).read_text("utf-8").split())


def source(number: str) -> str:
    """A notebook's source in one line, without the marks of its comments."""
    (path,) = (ROOT / "tutorials" / "sources").glob(f"{number}_*.py")
    return " ".join(re.sub(r"^# ?", "", path.read_text("utf-8"), flags=re.MULTILINE).split())


# -- what is written from records ------------------------------------------------------------------


@pytest.mark.parametrize("name", pages.PAGES)
def test_a_page_holds_what_the_records_say(name: str) -> None:
    page = (ROOT / name).read_text("utf-8")
    assert pages.written(page, FOUND) == page, "run: python -m benchmarks.pages"


def test_every_mark_stands_once_on_the_pages() -> None:
    whole = "".join((ROOT / name).read_text("utf-8") for name in pages.PAGES)
    marks = re.findall(r"<!-- ([a-z0-9-]+) -->", whole)
    assert sorted(marks) == sorted(spans.SPANS)


@pytest.mark.parametrize("name", [name for name in (*pages.FIGURES, "tour") if name in FOUND])
def test_a_figure_was_drawn_from_its_record(name: str) -> None:
    path = ROOT / "docs" / f"{name}.png"
    assert pages.digest_of(path) == pages.digest(FOUND[name]), "run: python -m benchmarks.pages"


@pytest.mark.parametrize(
    ("page", "message"),
    [
        ("<!-- nonsense -->1<!-- /nonsense -->", "no text for the mark 'nonsense'"),
        ("a <!-- load -->1", "A mark is not closed"),
        ("<!-- load -->1<!-- /weather -->", "A mark is not closed"),
    ],
)
def test_marks_that_are_wrong(page: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pages.written(page, FOUND)


# -- the tool, on records that are made up ---------------------------------------------------------


def timed(workload: str, num_samples: int, who: str, seconds: float, **more: Any) -> dict[str, Any]:
    about = {"workload": workload, "num_samples": num_samples, "who": who}
    return about | asdict(Timing.of([seconds, 1.1 * seconds, 0.9 * seconds])) | more


def made_up() -> dict[str, Any]:
    """Parts of a benchmark of one MLP, whose figures can be worked out in the head."""
    about = {
        "provenance": record.provenance(), "quick": False, "seconds_taken": 1.0,
        "others_busy": 0.0, "device": "cpu", "skipped": {},
    }  # fmt: skip
    one = {"spnb": 3.0, "plain": 2.0, "spnb, antithetic": 2.5, "Pyro": 9.0}
    steps = [timed("mlp", n, who, s) for n in (2, 16) for who, s in one.items()]
    peaks = [
        {"workload": "mlp", "num_samples": 16, "who": who, "objective": "ELBO", "bytes": size}
        for who, size in (("spnb", 9e6), ("Pyro", 250.6e6))
    ]
    two = {
        "one rank": 2.0, "sample-parallel": 1.0, "data-parallel": 1.25, "DDP": 1.6,
        "torch_blue, DDP": 2.0, "torch_blue, analytic KL, DDP": 2.5,
        "plain, one process": 1.9, "plain, two at once": 1.0,
    }  # fmt: skip
    pair = [timed("mlp", 16, who, s, ranks=2, oversubscribed=False) for who, s in two.items()]
    pair.append(timed("mlp", 32, "sample-parallel", 2.5, ranks=2, oversubscribed=False))
    shards = {"data=2": (1.0, 2e6, 1e6), "shard=2": (1.5, 1e6, 2e6), "FSDP2": (4.0, 1e6, 4e6)}
    return {
        "one_process": about | {"size": {"rounds": {"mlp": {"2": 3, "16": 3}}}, "times": steps},
        "memory": about | {"size": {"cases": {"mlp": [2, 16]}}, "peaks": peaks},
        "scaling": about | {
            "size": {"strong": [["mlp", 16]], "rounds": 3}, "two": pair, "four": [],
        },
        "update": about | {"size": {}, "times": []},
        "planner": about | {"size": {}, "times": [{"error": 0.04}, {"error": -0.13}]},
        "prediction": about | {
            "size": {"cases": [["mlp", 16]]},
            "times": [timed("mlp", 16, "one rank", 2.0), timed("mlp", 16, "two ranks", 1.6)],
        },
        "sharding": about | {
            "size": {"cases": [["mlp", 16]], "rounds": 3},
            "times": [
                timed("mlp", 16, who, seconds, kept=kept, sent=sent)
                for who, (seconds, kept, sent) in shards.items()
            ],
        },
    }  # fmt: skip


def outputs(folder: Path, parts: dict[str, Any]) -> Path:
    """What `make bench` and `make tour` would have written."""
    for name, part in parts.items():
        record.write(folder / "bench" / "bench.json", name, part)
    row = TourRow("serial", "sample=1 × data=1", 1, False, 2, 0.91, 0.3, 0.02, 4.04, 0.0, 0.0,
                  [1.0, 0.5])  # fmt: skip
    tour = {"provenance": passport.provenance(0), "settings": {}, "rows": [asdict(row)]}
    (folder / "tour").mkdir()
    (folder / "tour" / "tour.json").write_text(json.dumps(tour))
    (folder / "tour" / "tour.png").write_bytes(figures.png(figures.new()[0]))
    return folder


def copied(folder: Path) -> Path:
    """A repository of pages and records alone."""
    (folder / "docs").mkdir(parents=True)
    shutil.copy(ROOT / "README.md", folder)
    for path in (ROOT / "docs").glob("*.*"):
        if path.stem not in ("benchmark", "tour"):
            shutil.copy(path, folder / "docs")
    return folder


def test_records_are_taken_and_the_pages_say_what_they_hold(tmp_path: Path) -> None:
    root = copied(tmp_path / "repository")
    pages.take(outputs(tmp_path / "out", made_up()), root)
    changed = {path.name for path in pages.write(root)}
    assert {"README.md", "paper.md", "scale.md", "benchmark.png"} <= changed
    readme = (root / "README.md").read_text("utf-8")
    assert "| **spnb** | **1.50 / 1.50** | **9** |" in readme
    assert f"| Pyro {record.installed('pyro-ppl')}, AutoNormal | 4.50 / 4.50 | 251 |" in readme
    assert "| **spnb, antithetic pairs** | **1.25 / 1.25** | **–** |" in readme
    for line in ("| **share the samples** | **2.00** |", "| share the batch | 1.60 |",
                 "| torch's DDP, same posterior | 1.25 |",
                 "| torch_blue with DDP, as the paper has it | 1.00 |",
                 "| two processes that never speak to each other | 1.90 |",
                 "a step takes 1.25 to 1.25 times as long",
                 "16 samples of the MLP is 1.25 times as fast on two ranks",
                 "| MLP S = 16 | `shard=2` | 1.50 | 1.0 MB | 2.0 MB |",
                 "| MLP S = 16 | FSDP2 | 4.00 | 1.0 MB | 4.0 MB |"):  # fmt: skip
        assert line in readme, line
    row = "serial  sample=1 × data=1       2    0.9100  0.3000  0.0200      4.0"
    assert row in readme and datetime.now(UTC).date().isoformat() in readme
    paper = (root / "docs" / "paper.md").read_text("utf-8")
    assert "<!-- weak -->0.80 (MLP, 16 samples a rank)<!-- /weak -->" in paper
    assert "<!-- strong -->MLP S = 16: 2.00, 1.60, 1.25<!-- /strong -->" in paper
    assert "2.00 where two processes that never speak gain 1.90" in paper
    assert "within 13 %" in (root / "docs" / "scale.md").read_text("utf-8")
    taken = pages.records(root)
    for name in ("benchmark", "tour"):
        assert pages.digest_of(root / "docs" / f"{name}.png") == pages.digest(taken[name])
    assert taken["tour"]["machine"] == record.provenance()["machine"]
    assert taken["benchmark"]["parts"]["scaling"]["two"] == made_up()["scaling"]["two"]
    assert pages.write(root) == []


def test_quick_and_partial_runs_are_not_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = copied(tmp_path / "repository")
    with pytest.raises(FileNotFoundError, match=r"bench.json: 'make bench' makes it"):
        pages.take(tmp_path / "nothing", root)
    parts = made_up()
    parts["memory"]["quick"] = True
    with pytest.raises(ValueError, match=r"missing: nothing; quick: memory\): 'make bench'"):
        pages.take(outputs(tmp_path / "quick", parts), root)
    del parts["memory"]
    with pytest.raises(ValueError, match="missing: memory; quick: nothing"):
        pages.take(outputs(tmp_path / "partial", parts), root)
    assert not (root / "docs" / "tour.json").exists()
    with pytest.raises(SystemExit):
        pages.main(["--take", str(tmp_path / "nothing")])
    assert "'make bench' makes it" in capsys.readouterr().err


# -- sentences -------------------------------------------------------------------------------------


@pytest.mark.skipif("benchmark" not in FOUND, reason="`make bench` has not been taken yet")
def test_what_the_readme_says_of_speed() -> None:
    parts = FOUND["benchmark"]["parts"]
    times = parts["one_process"]["times"]
    others = {row["who"] for row in times} - {"plain", "spnb", "spnb, antithetic"}
    assert len(others) == 10, "the figure's alt text counts them"
    for row in times:
        if row["who"] in others:
            ours = spans.time_of(parts["one_process"], row["workload"], row["num_samples"], "spnb")
            theirs = spans.time_of(
                parts["one_process"], row["workload"], row["num_samples"], row["who"]
            )
            assert ours and theirs and ours.median < theirs.median, row["who"]
    ways = {row["who"]: row["median"] for row in parts["update"]["times"]}
    assert min(ways, key=lambda who: ways[who]) == "one sum"


@pytest.mark.skipif("tour" not in FOUND, reason="`make tour` has not been taken yet")
def test_what_the_readme_says_of_the_tour() -> None:
    rows = {row["name"]: row for row in FOUND["tour"]["rows"]}
    serial, samples, batch = (
        rows[name]["step_ms"] for name in ("serial", "sample-parallel", "data-parallel (DDP)")
    )
    assert samples < batch < serial
    assert max(row["difference"] for row in rows.values()) < 1e-5


def test_what_is_said_of_the_images() -> None:
    scores = FOUND["images"]["scores"]
    bayes, plain = scores["Bayesian"], scores["plain"]
    page = text("docs/paper.md")
    assert bayes["ece"] < plain["ece"] and bayes["nll"] < plain["nll"]
    gap = 100 * (bayes["accuracy"] - plain["accuracy"])
    assert round(gap) == 1 and "one seed tells no difference of one point" in page
    chance = 100 * math.sqrt(2 * bayes["accuracy"] * (1 - bayes["accuracy"]) / 2000)
    assert gap < 2 * chance
    assert bayes["auroc_entropy"] < plain["auroc_entropy"] < 0.65
    assert f"worse than a coin ({bayes['auroc_mutual_information']:.2f})" in page


def test_what_is_said_of_the_views() -> None:
    found = FOUND["augmentation"]
    page, targets = text("docs/paper.md"), found["targets"]
    shares, gains, ends, before = [], [], [], []
    for target in targets:
        shared = sum(target["shared"]) / len(target["shared"])
        shares.append(100 * target["difference"] / shared)
        gains.append(f"{target['difference']:.1f}")
        ends.append("–".join(f"{end:.1f}" for end in target["interval"]))
        before.append(f"{shared:.0f}")
        assert None not in target["shared"] + target["per_sample"] and target["pairs"] == 5
    assert f"saves {min(shares):.0f} to {max(shares):.0f} % of the epochs" in text("README.md")
    listed = f"{gains[0]}, {gains[1]} and {gains[2]} epochs earlier"
    assert f"{listed} (95 % intervals {', '.join(ends)})" in page
    assert f"of {before[0]}, {before[1]} and {before[2]}" in page
    shared, own = found["scores"].values()
    assert (
        f"the accuracy is {100 * own['accuracy']:.1f} against {100 * shared['accuracy']:.1f} %, "
        f"the NLL {own['nll']:.3f} against {shared['nll']:.3f}, the calibration error "
        f"{own['ece']:.3f} against {shared['ece']:.3f}"
    ) in page


def test_what_is_said_of_the_load() -> None:
    found, page = FOUND["load"], text("docs/paper.md")
    bayes, own, fitted = (
        found["by_seed"][who] for who in ("Bayesian MLP", "plain MLP, own noise", "plain MLP")
    )
    crps = [spans.span(each["crps"], 0) for each in (own, bayes, fitted)]
    inside = [spans.span(each["coverage_90"], 1, 100) for each in (own, bayes)]
    assert (
        f"better CRPS: {crps[0]} MW over five seeds, where the Bayesian one has {crps[1]} MW"
        in (page)
    )
    assert sum(a < b for a, b in zip(own["crps"], bayes["crps"], strict=True)) == 4
    assert f"{inside[0]} % of all hours lie within its 90 % intervals" in page
    assert f"the validation days ({crps[2]} MW)" in page
    better = [100 * (1 - a / b) for a, b in zip(bayes["crps"], fitted["crps"], strict=True)]
    assert 0 < min(better) and f"by {min(better):.0f} to {max(better):.0f} percent" in page
    assert f"({inside[1]} % over the seeds)" in page
    scores = found["scores"]
    pair = [f"{scores[who]['crps']:.0f}" for who in ("Bayesian MLP", "plain MLP, own noise")]
    assert f"({pair[0]} against {pair[1]} MW)" in text("README.md")


def test_how_many_hours_lie_outside_of_what_chance_allows() -> None:
    found, page, notebook = FOUND["load"], text("docs/paper.md"), source("08")
    chance = 2 * math.sqrt(0.9 * 0.1 / found["days"])
    assert f"two standard errors, {100 * chance:.1f} points" in page
    hours = found["coverage_by_hour"]
    outside = {
        who: [hour for hour in range(24) if abs(shares[hour] - 0.9) > chance]
        for who, shares in hours.items()
    }
    bayes = hours["Bayesian MLP"]
    wide = [hour for hour in outside["Bayesian MLP"] if bayes[hour] > 0.9]
    narrow = [hour for hour in outside["Bayesian MLP"] if bayes[hour] < 0.9]
    assert wide == [0, 1, 2, 3] and "the first four hours after midnight" in page
    assert len(narrow) == 7 and f"seven hours between {narrow[0]} and {narrow[-1]} UTC" in page
    assert f"{len(outside['Bayesian MLP'])} of the 24 hours lie more than two standard" in page
    assert len(outside["plain MLP"]) == 1 and "With the fitted noise it is one hour" in page
    assert f"the plain network's own {len(outside['plain MLP, own noise'])}." in page
    inside = 100 * found["scores"]["Bayesian MLP"]["coverage_90"]
    assert f"holds {inside:.1f} % of all hours, and yet {len(outside['Bayesian MLP'])} hours" in (
        notebook
    )


def test_what_is_said_of_the_weather() -> None:
    found, page = FOUND["weather"], text("docs/paper.md")
    assert f"a Swin of {round(found['parameters'], -3):,} weights" in page
    swin, ridge = (found["scores"][who] for who in ("Bayesian Swin", "damped ridge"))
    for score in ("rmse", "crps"):
        assert all(a < b for a, b in zip(swin[score], ridge[score], strict=True))
    assert all(0.17 < share < 0.22 for share in swin["of_samples"]), "a fifth of the error"


def test_every_temperature_and_sample_count_is_in_the_text() -> None:
    page = text("docs/paper.md")
    images, views, load, air = (
        FOUND[name]["settings"] for name in ("images", "augmentation", "load", "weather")
    )
    for number, settings in (
        ("07", images), ("07", views["network"]), ("08", load), ("09", air),
    ):  # fmt: skip
        told = f"T = {settings['temperature']:g}"
        assert re.search(rf"{re.escape(told)}\b", page), told
        assert re.search(rf"{re.escape(told)}\b", source(number)), (number, told)
    assert "two samples a step" in page and images["num_samples"] == load["num_samples"] == 2
    assert "all four samples of a step" in page and views["network"]["num_samples"] == 4
    assert f"{load['test_samples']} in prediction" in page
    assert f"{air['test_samples']} in prediction" in page


def test_what_is_said_of_one_gpu() -> None:
    found, page = FOUND["gpu"], text("docs/paper.md")
    one = {row["num_samples"]: row for row in found["times"] if row["way"] == "one after the other"}
    (plain,) = (row for row in found["times"] if row["way"] == "plain network")
    seconds = [row["seconds"]["median"] for row in (plain, one[1], one[4], one[16])]
    ms = [f"{1e3 * value:.{1 if value < 0.1 else 0}f}" for value in seconds]
    assert f"takes {ms[0]} ms for the plain network and {ms[1]}, {ms[2]} and {ms[3]} ms" in page
    costs = [f"{one[n]['plain_steps_a_sample']:.2f}" for n in (1, 4, 16)]
    assert f"({costs[0]}, {costs[1]} and {costs[2]} of it; medians of 11 rounds" in page
    off = max(abs(row["counted_absent"] / row["measured"] - 1) for row in found["memory"])
    assert off < 0.02 and "The count is right to 2 %" in page


@pytest.mark.slow
def test_the_memory_of_the_large_swin_is_counted_anew() -> None:
    x, y = (torch.empty(16, channels, 25, 53, device="meta") for channels in (7, 3))
    with torch.device("meta"):
        net = Swin((25, 53), 7, 6, **SIZES["large"])
    model = spnb.BayesianModel(net, likelihood=weather.LIKELIHOOD)
    found = footprint(spnb.MeanField(model), x, y)

    def gigabytes(layout: spnb.Layout, samples: int, way: str) -> str:
        return f"{budget(found, layout, samples, 16, way).total / 1e9:.0f}"

    one, eight = spnb.Layout(), spnb.Layout(sample=8)
    at_once = [gigabytes(layout, n, "all at once") for n in (64, 16) for layout in (one, eight)]
    page = text("docs/paper.md")
    assert f"{at_once[0]} GB on one GPU, {at_once[1]} GB on each of eight" in page
    assert f"(16 samples: {at_once[2]} and {at_once[3]} GB)" in page
    single = budget(found, one, 64, 16, "one by one").total / 1e9
    assert f"{single:.1f} GB on one GPU, whatever S is" in page


def test_what_is_said_of_the_regression() -> None:
    found, page = FOUND["regression"], text("docs/methods.md")
    scores = {name: s for name, s in found["scores"].items() if name != "point"}
    ratios = {name: s["gained"] / s["gained_error"] for name, s in scores.items()}
    first, second, third, *rest = sorted(ratios, key=lambda name: -ratios[name])
    assert (first, second, third) == ("linear", "NUTS", "SG-MCMC") and ratios[first] < 2
    assert f"The linear model gains {ratios['linear']:.2f} standard errors" in page
    assert f"NUTS {ratios['NUTS']:.2f}, SG-MCMC {ratios['SG-MCMC']:.2f}, all others less" in page
    assert all(ratios[name] < ratios[third] for name in rest)
    count = len(found["splits"]["point"]["rmse"])
    factor = math.sqrt(1 + count * found["overlap"])
    assert f"With 44 and 398 rows they are {factor:.2f} times as large" in page
    assert found["overlap"] == 44 / 398
    errors = [s["rmse_error"] for s in found["scores"].values()]
    assert f"all with errors of {min(errors):.1f} to {max(errors):.1f}" in page
    for name in ("linear", "NUTS", "low rank", "mean field", "SG-MCMC"):
        assert f"{name} {found['scores'][name]['rmse']:.1f}" in page
    gains = [f"{scores[name]['gained']:.3f}" for name in ("linear", "NUTS", "SG-MCMC")]
    assert f"linear {gains[0]}, NUTS {gains[1]} and SG-MCMC {gains[2]}" in page


def test_the_distances_to_nuts_are_those_that_the_notebook_states() -> None:
    (path,) = (ROOT / "tutorials" / "sources").glob("10_*.py")
    match = re.search(r"^STATED = (\{.*?\})", path.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    assert match is not None
    stated = {name.lower(): bound for name, bound in ast.literal_eval(match[1]).items()}
    stated["laplace, all weights"] = stated.pop("laplace")
    stated["nuts, half against half"] = stated.pop("nuts, half and half")
    page = (ROOT / "docs" / "methods.md").read_text("utf-8")
    rows = re.findall(r"^\| ([^|]+) \|(?: [\d.]+ \|){3} ([\d.]+) \| < ([\d.]+) \|$", page, re.M)
    assert {name.lower(): float(bound) for name, _, bound in rows} == stated
    assert all(float(overall) < float(bound) for _, overall, bound in rows)


def test_the_arithmetic_of_checkpoints_and_failures() -> None:
    """419 interruptions of 16,384 GPUs in 54 days; 24 bytes a weight at 2 GB a second."""
    page = text("docs/scale.md")
    hours = 54 * 24 / 419
    assert 3.0 < hours < 3.2 and "about every three hours" in page
    between = [hours * 16_384 / gpus for gpus in (1024, 64)]
    assert [round(value, -1) for value in between] == [50, 790]
    assert "interrupted every 50 hours, 64 every 800" in page
    *_, swin, wide = (len(job.posterior.loc) for job in at_scale.jobs())
    sizes = [24 * weights / 1e9 for weights in (swin, wide)]
    assert f"{sizes[0]:.1f} GB for 198 million weights, {sizes[1]:.0f} GB for 3.1 billion" in page
    seconds = [size / 2 for size in sizes]
    assert f"{seconds[0]:.1f} s, or {seconds[1]:.0f} s" in page
    every = [math.sqrt(2 * s * between[0] * 3600) for s in seconds]
    assert [round(value / 900) for value in every] == [1, 4]
    assert "every quarter of an hour, or every hour" in page
    costs = [math.sqrt(2 * s / (between[0] * 3600)) for s in seconds]
    assert [round(200 * cost) / 2 for cost in costs] == [0.5, 2.0]


# -- names -----------------------------------------------------------------------------------------


def test_the_authors_of_the_paper_are_named_right() -> None:
    citation = text("CITATION.cff")
    for name in AUTHORS:
        given, _, family = name.rpartition(" ")
        assert f'given-names: "{given}" family-names: "{family}"' in citation
        assert name in text("docs/paper.md")
    cited = [path.name[:2] for path in (ROOT / "tutorials" / "sources").glob("*.py")
             if "2604.04736" in path.read_text("utf-8")]  # fmt: skip
    assert len(cited) >= 10
    for number in cited:
        assert f"- {', '.join(AUTHORS)}:" in source(number), number
