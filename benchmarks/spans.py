"""What the pages say of the records: tables, sentences and numbers.

`benchmarks.pages` puts them between the marks of the pages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from benchmarks import goals
from benchmarks.goals import Row, find, label, ratio_in, workload_name
from benchmarks.measure import Timing
from benchmarks.scaling import ALONE, TOGETHER
from spnb.teach.tour import Row as TourRow
from spnb.teach.tour import table as tour_table

Record = dict[str, Any]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [f"| {' | '.join(line)} |" for line in (head, *rows)]
    return "\n".join([lines[0], "|---" * len(head) + "|", *lines[1:]])


def several(values: Iterable[object]) -> str:
    """Values with slashes between them."""
    return " / ".join(map(str, values))


def number(value: float | Timing | None, digits: int = 2) -> str:
    """A number, the median of a timing, or a dash."""
    if value is None:
        return "–"
    return f"{value.median if isinstance(value, Timing) else value:.{digits}f}"


def bold(line: Sequence[str]) -> list[str]:
    """Cells that stand out."""
    return [f"**{cell}**" for cell in line]


# -- the tour and the benchmark --------------------------------------------------------------------


def tour(found: Record) -> str:
    """The tour's table, and where it was made."""
    rows = [TourRow(**row) for row in found["rows"]]
    return f"```\n{tour_table(rows)}\n```\n\n({found['provenance']}; {found['date'][:10]}.)"


def origin(part: Row) -> str:
    """Machine, versions, seed and date of a part of the benchmark."""
    about = part["provenance"]
    machine, versions = about["machine"], about["versions"]
    return (
        f"{machine['cores']} cores of {machine['processor']}, Python {versions['python']}, torch "
        f"{versions['torch']}, seed {about['seed']}, {about['date'][:10]}"
    )


STEPS = {
    "spnb": "spnb",
    "spnb, antithetic": "spnb, antithetic pairs",
    "stacked": "`torch.vmap` over stacked weights (a sketch)",
    "bayesian-torch": "bayesian-torch {bayesian-torch}",
    "torchbayesian": "torchbayesian {torchbayesian}",
    "torch_blue": "torch_blue {torch_blue} (the paper's), sampled KL",
    "Pyro": "Pyro {pyro}, AutoNormal",
    "posteriors": "posteriors {posteriors}",
}
"""Rows of the table of steps, and what they are called there."""


def steps(found: Record) -> str:
    """Step times in plain passes, and peak memory, of ours and of the best known others."""
    one, memory = found["parts"]["one_process"], found["parts"]["memory"]
    about = one["provenance"]
    counts = {
        workload: sorted(map(int, by_samples))
        for workload, by_samples in one["size"]["rounds"].items()
    }
    most = {workload: max(cases) for workload, cases in memory["size"]["cases"].items()}
    names = {key: work["name"].split(" (")[0] for key, work in about["workloads"].items()}
    head = [
        "a step, in S plain passes",
        *(f"{names[workload]}, S = {several(of)}" for workload, of in counts.items()),
        f"peak memory in MB, {several(label(*case) for case in most.items())}",
    ]
    rows = []
    for who, name in STEPS.items():
        cells = [
            several(number(time_of(one, workload, n, who)) for n in of)
            for workload, of in counts.items()
        ]
        peaks = [
            find(memory["peaks"], workload=workload, num_samples=n, who=who, objective="ELBO")
            for workload, n in most.items()
        ]
        cells.append(several(number(p and p["bytes"] / 1e6, 0) for p in peaks))
        if any(map(str.isdigit, "".join(cells))):
            line = [name.format(**about["versions"] | about["peers"]), *cells]
            rows.append(bold(line) if who.startswith("spnb") else line)
    return table(head, rows)


def time_of(part: Row, workload: str, num_samples: int, who: str) -> Timing | None:
    """A step of somebody, in plain passes."""
    case = {"workload": workload, "num_samples": num_samples}
    return ratio_in(part["times"], case, who, "plain")


TWO_RANKS = {
    "share the samples": ("sample-parallel",),
    "share the batch": ("data-parallel",),
    "torch's DDP, same posterior": ("DDP",),
    "torch_blue with DDP, as the paper has it": ("torch_blue, DDP", "torch_blue, analytic KL, DDP"),
}
"""Rows of the table of two ranks, and whose times they hold: of several the shortest."""


def speed_up(part: Row, workload: str, num_samples: int, whose: Sequence[str]) -> float | None:
    """How many times as fast as one rank of ours two ranks are."""
    case = {"workload": workload, "num_samples": num_samples}
    found = [ratio_in(part["two"], case, "one rank", who) for who in whose]
    return max((timing.median for timing in found if timing), default=None)


def limit(part: Row, workload: str, num_samples: int) -> Timing | None:
    """What two processes gain that never speak to each other."""
    case = {"workload": workload, "num_samples": num_samples}
    return ratio_in(part["two"], case, ALONE, TOGETHER)


def two_ranks(found: Record) -> str:
    """What two ranks gain at the same work, and lose at twice the work."""
    part = found["parts"]["scaling"]
    cases = part["size"]["strong"]
    head = ["two ranks, times as fast as one rank of spnb", *(label(*case) for case in cases)]
    rows = [
        [name, *(number(speed_up(part, *case, whose)) for case in cases)]
        for name, whose in TWO_RANKS.items()
    ]
    rows[0] = bold(rows[0])
    rows.append(
        [
            "two processes that never speak to each other",
            *(number(limit(part, *case)) for case in cases),
        ]
    )
    slower = [1 / efficiency.median for *_, efficiency in goals.weak(part["two"])]
    return (
        f"{table(head, rows)}\n\nWith twice the work on two ranks a step takes {min(slower):.2f} "
        f"to {max(slower):.2f} times as long.\n{prediction(found)}\n"
        f"({origin(part)}; medians of {part['size']['rounds']} rounds.)"
    )


def prediction(found: Record) -> str:
    """How much faster two ranks predict."""
    part = found["parts"]["prediction"]
    told = []
    for workload, num_samples in part["size"]["cases"]:
        case = {"workload": workload, "num_samples": num_samples}
        gained = number(ratio_in(part["times"], case, "one rank", "two ranks"))
        told.append(
            f"A prediction with {num_samples} samples of the {workload_name(workload)} is {gained} "
            "times as fast on two ranks as on one."
        )
    return " ".join(told)


def sharding(found: Record) -> str:
    """Time, memory and traffic of parameters that are shared out."""
    part = found["parts"]["sharding"]
    head = ("two ranks", "", "time, over `data=2`", "kept by a rank", "sent in a step")
    rows = []
    for workload, num_samples in part["size"]["cases"]:
        case = {"workload": workload, "num_samples": num_samples}
        for who, name in (("data=2", "`data=2`"), ("shard=2", "`shard=2`"), ("FSDP2", "FSDP2")):
            row = find(part["times"], **case, who=who)
            assert row is not None
            over = number(ratio_in(part["times"], case, who, "data=2"))
            sizes = (f"{row[size] / 1e6:.1f} MB" for size in ("kept", "sent"))
            rows.append((label(workload, num_samples), name, over, *sizes))
    rounds = part["size"]["rounds"]
    return f"{table(head, rows)}\n\n({origin(part)}, gloo; medians of {rounds} rounds.)"


def weak(found: Record) -> str:
    """Weak scaling, one case after the other."""
    return ", ".join(
        f"{number(efficiency)} ({workload_name(workload)}, {each} samples a rank)"
        for workload, each, efficiency in goals.weak(found["parts"]["scaling"]["two"])
    )


def strong(found: Record) -> str:
    """Strong scaling of samples, batch and DDP, one case after the other."""
    part = found["parts"]["scaling"]
    told = []
    for case in part["size"]["strong"]:
        gains = [number(speed_up(part, *case, whose)) for whose in TWO_RANKS.values()]
        told.append(f"{label(*case)}: {', '.join(gains[:3])}")
    return "; ".join(told)


def small(found: Record) -> str:
    """What the smallest case gains, and could."""
    part = found["parts"]["scaling"]
    gained = number(speed_up(part, "mlp", 16, ("sample-parallel",)))
    return f"{gained} where two processes that never speak gain {number(limit(part, 'mlp', 16))}"


def planner(found: Record) -> str:
    """How far predicted step times are from measured ones, at most."""
    errors = [abs(row["error"]) for row in found["parts"]["planner"]["times"]]
    return f"within {100 * max(errors):.0f} %"


# -- the recipes -----------------------------------------------------------------------------------


AUTHORS = {
    "samples S in training": "16",
    "batch": "128",
    "epochs": "80",
    "Adam's rate": "1e-3",
    "temperature (*heat*)": "0.1",
    "prior": "N(0, 1)",
    "initial standard deviation": "0.01",
    "seeds": "",
}
"""What stands in the authors' repository, by its example configuration and its defaults."""


def settings(images: Record, views: Record, load: Record, weather: Record) -> str:
    """Settings of the recorded runs beside those of the authors."""
    chosen = [images["settings"], views["settings"]["network"], load["settings"],
              weather["settings"]]  # fmt: skip
    seeds = [1, views["settings"]["repeats"], load["settings"]["repeats"], 1]
    columns = [
        (
            s["num_samples"],
            s["batch_size"],
            s["epochs"],
            f"{s['learning_rate']:.0e}".replace("e-0", "e-"),
            f"{s['temperature']:g}",
            f"N(0, {s['gain']:g}²/n)",
            f"{s['init_scale']:g}",
            n,
        )
        for s, n in zip(chosen, seeds, strict=True)
    ]
    rows = [
        (name, theirs, *(str(column[i]) for column in columns))
        for i, (name, theirs) in enumerate(AUTHORS.items())
    ]
    return table(("", "authors", "images", "views", "load", "weather"), rows)


def images(found: Record) -> str:
    """Scores of the image classifiers."""
    names = {"Bayesian": f"Bayesian ViT, {found['settings']['test_samples']} samples"}
    rows = [
        (
            names.get(who, who.replace("plain", "plain ViT")),
            f"{100 * scores['accuracy']:.1f} %",
            f"{scores['nll']:.3f}",
            f"{scores['ece']:.3f}",
            f"{scores['auroc_entropy']:.2f}",
        )
        for who, scores in found["scores"].items()
    ]
    return table(("", "accuracy", "NLL", "ECE", "strangers by entropy (AUROC)"), rows)


def views(found: Record) -> str:
    """Epochs to each target accuracy."""
    rows = []
    for target in found["targets"]:
        shared, own = (sum(target[way]) / len(target[way]) for way in ("shared", "per_sample"))
        low, high = target["interval"]
        rows.append(
            (
                f"{100 * target['accuracy']:.1f} %",
                f"{shared:.1f} epochs",
                f"{own:.1f}",
                f"{target['difference']:.1f}",
                f"{low:.1f} to {high:.1f}",
            )
        )
    head = ("target accuracy", "one view for all", "a view for each", "saved", "95 % interval")
    return table(head, rows)


LOAD = {
    "Bayesian MLP": "Bayesian MLP",
    "plain MLP, own noise": "plain MLP, same likelihood: noise of its own",
    "plain MLP": "plain MLP, normal noise fitted on the validation days",
    "grid operator": "grid operator, noise fitted likewise",
    "previous day": "previous day, likewise",
    "previous week": "previous week, likewise",
}
"""Rows of the table of the load, and what they are called there."""


def load(found: Record) -> str:
    """Scores of the load forecasts."""
    rows = []
    for who, name in LOAD.items():
        scores, over_seeds = found["scores"][who], found["by_seed"].get(who)
        rows.append(
            (
                name,
                f"{scores['mape']:.2f} %",
                f"{scores['crps']:,.0f} MW",
                span(over_seeds["crps"], 0) if over_seeds else "",
                f"{100 * scores['coverage_90']:.1f} %",
            )
        )
    seeds = found["settings"]["repeats"]
    return table(("", "MAPE", "CRPS", f"{seeds} seeds", "hours in the 90 % interval"), rows)


def span(values: Sequence[float], digits: int, factor: float = 1.0) -> str:
    """The smallest to the largest of some values."""
    return f"{factor * min(values):.{digits}f} to {factor * max(values):.{digits}f}"


def weather(found: Record) -> str:
    """Scores of the weather forecasts."""
    rows = [
        (
            name,
            *(
                several(number(value) for value in found["scores"][name][score])
                for score in ("rmse", "crps", "spread_skill")
            ),
        )
        for name in ("Bayesian Swin", "damped ridge", "ridge", "persistence")
    ]
    head = (f"at {several(found['leads'])} hours", "RMSE (K)", "CRPS (K)", "spread / error")
    return table(head, rows)


GPU_WAYS = {
    "one sample after the other": "one sample after the other",
    "two passes": "two passes (predictive NLL)",
    "kept graphs": "graphs kept (predictive NLL)",
    "all samples at once": "all four at once",
}
"""Rows of the table of one GPU, and what they are called there."""


def gpu(found: Record) -> str:
    """Memory on one GPU, counted and measured."""
    networks = dict.fromkeys(row["network"] for row in found["memory"])
    rows = []
    for way, name in GPU_WAYS.items():
        line = [name]
        for network, digits in zip(networks, (3, 2), strict=True):
            row = find(found["memory"], network=network, way=way)
            assert row is not None
            sizes = (number(row[size] / 1e9, digits) for size in ("counted_absent", "measured"))
            line.append(f"{several(sizes)} GB")
        rows.append(line)
    head = (
        "memory",
        "ViT of 2.7 M weights, batch of 128: counted / measured",
        "Swin of 198 M, batch of 16",
    )
    return table(head, rows)


def regression(found: Record) -> str:
    """The regression benchmark."""
    rows = []
    for method, scores in found["scores"].items():
        cells = [
            f"{scores[name]:.{digits}f} ± {scores[f'{name}_error']:.{digits}f}"
            for name, digits in (("rmse", 2), ("log_likelihood", 3), ("gained", 3))
        ]
        rows.append((method, *cells[:2], "–" if method == "point" else cells[2]))
    return table(("", "RMSE", "log-likelihood (nats)", "more than `point`"), rows)


SPANS: dict[str, tuple[tuple[str, ...], Callable[..., str]]] = {
    "tour": (("tour",), tour),
    "steps": (("benchmark",), steps),
    "two-ranks": (("benchmark",), two_ranks),
    "sharding": (("benchmark",), sharding),
    "weak": (("benchmark",), weak),
    "strong": (("benchmark",), strong),
    "small": (("benchmark",), small),
    "planner": (("benchmark",), planner),
    "settings": (("images", "augmentation", "load", "weather"), settings),
    "images": (("images",), images),
    "views": (("augmentation",), views),
    "load": (("load",), load),
    "weather": (("weather",), weather),
    "gpu": (("gpu",), gpu),
    "regression": (("regression",), regression),
}
"""What stands between two marks: the records that it comes from, and what writes it."""
