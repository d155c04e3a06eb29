# %% [markdown]
# # Hybrid layouts
#
# The board of a Bayesian step has two sides: samples down, rows across. So far you cut it one way
# or the other. Now cut it both ways at once. That is easy to do and never wrong: every layout
# computes the same training. What is left is a question of time and memory: *which one?* In this
# notebook you learn to answer it before you run anything, and you hold the answer against a clock.
#
# **You will be able to**
#
# - lay out ranks on two axes, and say which group of ranks speaks about what
# - show that a hybrid run equals the serial one, also where nothing divides evenly
# - work out how busy the ranks of a layout are
# - predict the time of a step from a few measured constants, and check the prediction
# - read a plan for machines that you do not have, and know what it rests on
# - choose a layout, with or without a memory limit
#
# It takes about 60 minutes to work through. Run from top to bottom without stopping, the notebook
# needs about a minute at the `ci` scale on two cores and less than five minutes at the `laptop`
# scale (set `SPNB_SCALE` before JupyterLab starts to choose).

# %%
import math
import os
import statistics
from dataclasses import replace

import torch
import torch.distributed as dist
import spnb
from spnb.maths.networks import ViT, mlp
from spnb.parallel.devices import usable_cores
from spnb.run.plan import layouts, predict
from spnb.teach import datasets, figures, scale
from spnb.teach.checks import nb05 as check
from spnb.teach.explore import layout_bars
from spnb.teach.explore.layout_bars import LOOKS, human_bytes, human_time
from spnb.teach.explore.planner import Measured, layout_planner
from spnb.teach.explore.tiles import draw_tiles
from spnb.teach.passport import provenance

torch.set_num_threads(1)  # small nets gain nothing from more, and the workers want the cores
SEED = 0
STEPS = scale.pick(ci=4, laptop=57, node=57)  # of training, in section 2
ROUNDS = scale.pick(ci=2, laptop=12, node=40)  # of the race against the plan
print(f"scale: {scale.name()}, {STEPS} training steps, {ROUNDS} rounds of the race")
print(provenance(SEED))

# %% [markdown]
# ## Two axes
#
# Write the ranks into a grid. That is one call, `view`: a row for each group of samples, a column
# for each group of rows. Here are eight ranks as 4 × 2.
#
# **Predict:** which ranks hold the *same samples* as rank 0? Which see the *same rows*?

# %%
sample, data = 4, 2
grid = torch.arange(sample * data).view(sample, data)
print("grid:", *grid.tolist(), sep="\n  ")
print("along data, the rows of the grid:     ", grid.tolist())
print("along sample, the columns of the grid:", grid.T.tolist())

layout = spnb.Layout(sample=4, data=2)
rank = 5
print(f"\nrank {rank} is in sample group {layout.coordinate(rank, 'sample')} and data group "
      f"{layout.coordinate(rank, 'data')}")
print(f"its neighbours along sample: {layout.ranks(rank, 'sample')}")
print(f"its neighbours along data:   {layout.ranks(rank, 'data')}")

# %% [markdown]
# **Explain.** Ranks count fastest along `data`. Ranks in one *row* of the grid hold the same
# samples and share the batch. Ranks in one *column* see the same rows and share the samples. Who
# has to speak to whom follows from that:
#
# | group | they speak about | when |
# |---|---|---|
# | all ranks | the **gradient**: one sum | in every step |
# | along `sample` | **predictions** of all samples | if the objective needs them together |
# | along `data` | predictions of all rows | if a loss belongs to a batch, not to a row |
#
# The ELBO is a mean over samples, so the first line is all it needs. The negative log of the *mean*
# prediction is not: there the ranks along `sample` tell each other what their samples predict.
# Notebook 06 is about that. (PyTorch calls such a grid a *device mesh*. It is the same idea.)
#
# ### Exercise 1 · difficulty 2/5 · 5 minutes
#
# Return the groups of ranks that exchange predictions over the samples: a list of lists.


# %% tags=["exercise"]
def sample_groups(sample, data):
    """The groups of ranks along ``sample``, for a grid of ``sample * data`` ranks."""
    # BEGIN SOLUTION
    # STUB: groups = ...
    groups = torch.arange(sample * data).view(sample, data).T.tolist()
    # END SOLUTION
    return groups


# %% [markdown] tags=["hint"]
# They see the same rows of the batch and differ in their samples: the columns of the grid.

# %% [markdown] tags=["expected"]
# Two groups of four for `sample_groups(4, 2)`, and `[[0], [1], [2], [3]]` for
# `sample_groups(1, 4)`: with one rank along `sample` there is nobody to ask.

# %%
check.exercise_1(sample_groups)

# %% [markdown]
# ## A layout is a value
#
# `Layout(sample=..., data=...)` says how the world is cut. One axis may be -1: it takes what is
# left. A layout that cannot be is refused *before* any process has started to compute, with the
# whole equation.

# %%
print("8 ranks:", spnb.Layout(sample=2, data=-1).resolve(8), "\n")
attempts = {
    "3 × 2 on 8 ranks": lambda: spnb.Layout(sample=3, data=2).resolve(8),
    "sample=3, the rest along data, on 8 ranks": lambda: spnb.Layout(sample=3, data=-1).resolve(8),
    "both to be inferred": lambda: spnb.Layout(sample=-1, data=-1),
    "8 × 1 for 5 samples": lambda: spnb.Layout(sample=8).check_work(num_samples=5, num_rows=25),
}
for name, attempt in attempts.items():
    try:
        attempt()
    except ValueError as refusal:
        print(f"{name}:\n    {refusal}")

# %% [markdown]
# ## Nothing divides, and nothing is lost
#
# Now a real run on four ranks. We choose S = 5 and B = 25 on purpose. Neither 2 nor 4 divides
# either of them. Four ranks may be more than your cores: then they take turns. That is fine here.
# We look at *what* they compute, not at how fast. As in notebook 03 we use double precision, so
# that a wrong result and an honest rounding error are easy to tell apart.
#
# **Predict:** how far from the serial weights will the hybrid end up? Which of the runs below send
# more than their gradient?

# %%
S, B = 5, 25
digits = datasets.digits(flat=False)
print(digits, digits.sentence, sep="\n")
torch.manual_seed(SEED)
small = torch.nn.Sequential(torch.nn.Flatten(), mlp((64, 16, 10))).double()
posterior = spnb.MeanField(spnb.BayesianModel(small), init_scale=0.05)
batches = digits.train_x[: STEPS * B].double(), digits.train_y[: STEPS * B]
options = dict(num_samples=S, batch_size=B, learning_rate=0.01, seed=SEED)

print(f"\n4 ranks on {usable_cores()} usable cores\n")
print(f"{'objective':15}{'layout':9}{'tile of each rank':34}{'bytes a step':>13}{'off by':>9}")
with spnb.WorkerPool(4) as pool:
    for objective in (spnb.ELBO(), spnb.PredictiveNLL()):
        serial = spnb.fit(posterior, batches, objective=objective, **options)
        for layout in (spnb.Layout(4, 1), spnb.Layout(2, 2), spnb.Layout(1, 4)):
            run = pool.run(spnb.fit, posterior, batches, objective=objective, layout=layout,
                           **options)[0]
            tiles = [layout.tile(rank, S, B) for rank in range(4)]
            shapes = ", ".join(f"{len(t.samples)}×{len(t.rows)}" for t in tiles)
            gap = (run.posterior.loc - serial.posterior.loc).abs().max()
            print(f"{type(objective).__name__:15}{layout.sample} × {layout.data:<5}{shapes:34}"
                  f"{run.history.bytes_per_step:13,.0f}{gap:9.0e}")
pool = spnb.WorkerPool(2)  # for the rest of the notebook; the workers start while you read on

# %% [markdown]
# **Explain.** All runs end at the serial weights, but for the order in which a sum was added up.
# The tiles differ, and it does not matter: each sample and each row has exactly one owner, and a
# mean is divided by S and B, not by somebody's share. The runs that send more are those of
# `PredictiveNLL` with more than one rank along `sample`: they also send predictions.
#
# So the layout never changes *what* you compute. From here on we only ask how long it takes.
#
# ## The largest tile decides
#
# All ranks meet in the all-reduce. Who is done early waits. So the time of a step goes by the
# **largest** tile, and the ranks are busy only for a part of it:
#
# $$ \text{efficiency} = \frac{S \cdot B}{W \cdot \text{largest tile}}. $$
#
# ### Exercise 2 · difficulty 2/5 · 5 minutes
#
# Write it for a layout of `sample * data` ranks. Nobody can take half a sample, or half a row.


# %% tags=["exercise"]
def efficiency(num_samples, num_rows, sample, data):
    """Part of the time for which the ranks are busy on average, 0 to 1."""
    # BEGIN SOLUTION
    # STUB: busy = ...
    largest = math.ceil(num_samples / sample) * math.ceil(num_rows / data)
    busy = num_samples * num_rows / (sample * data * largest)
    # END SOLUTION
    return busy


# %% [markdown] tags=["hint"]
# The rank with most samples has `ceil(S / sample)` of them. Round up each axis by itself, then
# multiply.

# %% [markdown] tags=["expected"]
# `efficiency(8, 64, 4, 2)` is `1.0`. For 5 samples and 25 rows on 2 × 2 ranks it is about `0.80`.

# %%
check.exercise_2(efficiency)

# %% [markdown]
# Here are all layouts of eight ranks, for B = 25 rows and every S up to 24. On the left one of the
# boards, cut by the function that training uses.
#
# **Predict:** which layout is best for S = 5? And which for S = 24? Why are the curves saw blades?

# %%
W, B = 8, 25
fig, (left, right) = figures.new(9.6, 3.7, columns=2, width_ratios=(1, 1.5))
draw_tiles(left, spnb.Layout(sample=4, data=2), 5, B)
left.set_title("S = 5 on 4 × 2 ranks")
busy = {}
for index, layout in enumerate(layouts(W, 24, B)):
    for s in range(layout.sample, 25):
        largest = max(math.prod((len(t.samples), len(t.rows)))
                      for t in (layout.tile(rank, s, B) for rank in range(W)))
        busy.setdefault(layout, {})[s] = s * B / (W * largest)
    right.plot(busy[layout].keys(), busy[layout].values(), **figures.look(index), ms=4,
               label=f"{layout.sample} × {layout.data}")
right.set(xlabel="samples S", ylabel="efficiency", ylim=(0.4, 1.08), xticks=range(0, 25, 4),
          yticks=[0.4, 0.6, 0.8, 1.0], title=f"{W} ranks, B = {B} rows")
right.legend(title="sample × data", ncols=2, loc="lower right")
figures.footnote(fig, "counted from spnb.Layout.tile; nothing is random here")
told = {s: {f"{k.sample} × {k.data}": v[s] for k, v in busy.items() if s in v} for s in (5, 24)}
figures.show(fig, alt="Efficiency of all layouts of 8 ranks against S, as saw blades. " + " ".join(
    f"S = {s}: " + ", ".join(f"{name} {v:.2f}" for name, v in found.items()) + "."
    for s, found in told.items()))
for s, found in told.items():
    print(f"S = {s}: {max(found, key=found.get)} is busiest, {max(found.values()):.0%} of the time")
tops = {s: max((k for k in busy if s in busy[k]), key=lambda k: busy[k][s]) for s in range(1, 25)}
print("a hybrid is busiest for S =", *[s for s, k in tops.items() if min(k.sample, k.data) > 1])

# %% [markdown]
# **Explain.** A curve reaches its peak where its number of sample ranks divides S, and falls
# just behind. `8 × 1` is perfect for 8, 16 and 24 samples, and wastes almost half for 9. The
# layouts with more ranks along `data` are steadier. But 25 rows do not divide by 2, 4 or 8 either,
# so they never reach 1. Between the two, a hybrid is often the better deal: the last line says for
# which S.
#
# ## What a step costs
#
# Efficiency is not everything. A rank with $S_r$ samples and $b_r$ rows spends its step on
#
# | kind | goes with |
# |---|---|
# | **passes**, forward and backward | $S_r$ passes on $b_r$ rows each |
# | **draw**: noise and weights, and their gradients back | $S_r \cdot P$, *whatever the rows* |
# | **update**: divergence, Adam | P, once |
# | **all-reduce** of the gradient | 2P numbers, over all ranks |
# | **gather** of predictions, if the objective needs them | predictions, along `sample` |
#
# Look at the second line: a rank draws all its samples' weights, however few rows it has. Cutting
# the batch does not cut the drawing. Cutting the samples does.
#
# Messages follow the **α–β model**: n bytes take $\alpha + n / \beta$ seconds. The latency α is
# there even for one byte; β is the bandwidth. And several ranks on one chip are in each other's
# way: that is *crowding*. `spnb.calibrate` measures all these constants on your live workers.

# %%
here = spnb.calibrate(pool)
link = here.inside
print(f"{here.name}, {here.source}")
for name, value in {
    "draw one weight of one sample": f"{1e9 * here.draw:8.2f} ns",
    "update one weight": f"{1e9 * here.update:8.2f} ns",
    "overhead of a sample": f"{1e6 * here.per_sample:8.0f} µs",
    "overhead of a step": f"{1e6 * here.per_step:8.0f} µs",
    "latency α of a message": f"{1e6 * link.latency:8.0f} µs",
    "bandwidth β": f"{1e-9 * link.bandwidth:8.2f} GB/s",
    "passes, all ranks at once": f"{here.crowding:8.2f} × the time of one alone",
}.items():
    print(f"  {name:32}{value}")
if min(here.draw, here.update, link.latency) > 0:
    waiting = link.all_reduce(0, pool.size)
    print(f"While an all-reduce of nothing takes {human_time(waiting)}, a rank could draw "
          f"{waiting / here.draw:,.0f} weights.")
else:
    print("A constant of 0 drowned in the noise of other programs: run this cell again.")

# %% [markdown]
# ### Exercise 3 · difficulty 3/5 · 8 minutes
#
# How long does an all-reduce take? A good one works in two halves. In the first, each rank ends up
# with the sum of *its part* of the numbers. In the second, the parts are gathered. Each half takes
# ⌈log₂ W⌉ messages one after the other, and moves the share (W - 1)/W of the bytes through each
# rank. Write down the seconds of the whole.


# %% tags=["exercise"]
def all_reduce_seconds(size, ranks, latency, bandwidth):
    """Seconds to sum ``size`` bytes over ``ranks`` ranks; latency in s, bandwidth in bytes/s."""
    # BEGIN SOLUTION
    # STUB: seconds = ...
    half = math.ceil(math.log2(ranks)) * latency + (ranks - 1) / ranks * size / bandwidth
    seconds = 2 * half
    # END SOLUTION
    return seconds


# %% [markdown] tags=["hint"]
# Write one half first: a number of latencies, and the bytes that move over the bandwidth. Both
# halves cost the same. `math.log2` may need rounding up.

# %% [markdown] tags=["expected"]
# 1 MB over 8 ranks, with 10 µs and 1 GB/s: 6 latencies and 1.75 MB, together 1.81 ms.

# %%
check.exercise_3(all_reduce_seconds)

# %% [markdown]
# ## Plan, then measure
#
# `spnb.plan` puts it together. It times plain passes of *your* network on one of the workers, takes
# the constants, and predicts every layout of the pool. Two networks: a perceptron, and a small
# vision transformer (ViT) that needs more time for each weight.
#
# **Predict** before you look: for which of the two is it worth while to use both ranks at all?

# %%
S, B = 8, 64
torch.manual_seed(SEED)
nets = {
    "perceptron": torch.nn.Sequential(torch.nn.Flatten(), mlp((64, 256, 10))),
    "ViT": ViT(image_size=8, patch=2, channels=1, dim=48, depth=2, heads=3, hidden=192),
}
posteriors = {
    name: spnb.MeanField(spnb.BayesianModel(net, prior=spnb.priors.fan_in(1.0)))
    for name, net in nets.items()
}
plans, predicted = {}, {}
ways = [spnb.Layout(), spnb.Layout(sample=2), spnb.Layout(data=2)]
for name, net in posteriors.items():
    plans[name] = spnb.plan(net, digits.train, num_samples=S, batch_size=B, pool=pool, machine=here)
    for layout in ways:  # one rank alone is a layout, too
        predicted[name, layout] = predict(plans[name].costs, here, layout, S, B)
    print(f"{name}, P = {plans[name].costs.weights:,}: one rank alone "
          f"{human_time(predicted[name, ways[0]].seconds)}; two ranks:\n{plans[name]}\n")

# %% [markdown]
# Now the clock. All layouts run in turns, so that a passing load meets each of them.


# %%
def race(posteriors, data, ways, rounds, num_samples, batch_size):
    """Milliseconds of every step, by network and layout; rank 0 works alone for 1 × 1."""
    times = {}
    for _ in range(rounds):
        for name, posterior in posteriors.items():
            for layout in ways:
                dist.barrier()
                if layout.size == 1 and dist.get_rank() > 0:
                    continue  # this rank idles
                found = spnb.fit(
                    posterior,
                    data,
                    layout=layout if layout.size > 1 else None,
                    num_samples=num_samples,
                    batch_size=batch_size,
                )
                steps = [1000 * record.seconds for record in found.history.steps[2:]]
                times.setdefault((name, layout), []).extend(steps)
    return times


some = spnb.share((digits.train_x[: 8 * B], digits.train_y[: 8 * B]))
times = pool.run(race, posteriors, some, ways, ROUNDS, S, B)[0]
load = os.getloadavg()[0]
print({f"{n} {w.sample} × {w.data}": f"{len(v)} steps" for (n, w), v in times.items()})

# %%
fig, panels = figures.new(9.6, 3.7, columns=2)
for ax, name in zip(panels, posteriors, strict=True):
    for place, layout in enumerate(ways):
        layout_bars.draw_stack(ax, place - 0.2, predicted[name, layout])
        layout_bars.draw_measured(ax, place + 0.2, times[name, layout])
    labels = [f"{w.sample} × {w.data}" for w in ways]
    ax.set(xticks=range(3), xticklabels=labels, title=name, xlabel="layout, sample × data")
    ax.grid(axis="x", visible=False)
panels[0].set_ylabel("ms a step")
fig.legend(handles=layout_bars.handles(measured=True), loc="outside upper center", ncols=6)
figures.footnote(fig, f"S = {S}, B = {B}; whiskers: the middle half of the steps; seed {SEED}")
medians = {key: statistics.median(value) for key, value in times.items()}
figures.show(fig, alt="Predicted and measured milliseconds a step. " + "; ".join(
    f"{name} {w.sample} × {w.data}: predicted {1e3 * predicted[name, w].seconds:.1f}, "
    f"measured {medians[name, w]:.1f}" for name, w in medians) + ".")

# %% [markdown]
# Is that good? Two questions. How far off is a prediction? And, which matters more: does the plan
# pick the layout that the clock would have picked? If not, what does its choice cost?

# %%
def judged(error):
    """A word for a relative error of a prediction."""
    return "on the mark" if abs(error) < 0.1 else "close" if abs(error) < 0.3 else "off"


print(f"{'':12}{'layout':8}{'predicted':>10}{'measured':>10}{'off by':>8}")
for name in posteriors:
    for w in ways:
        guess = 1e3 * predicted[name, w].seconds
        error = medians[name, w] / guess - 1
        print(f"{name:12}{w.sample} × {w.data:<4}{guess:7.1f} ms{medians[name, w]:7.1f} ms"
              f"{error:8.0%}  {judged(error)}")
    chosen = min(ways, key=lambda w: predicted[name, w].seconds)
    quickest = min(ways, key=lambda w: medians[name, w])
    regret = medians[name, chosen] / medians[name, quickest] - 1
    print(f"  the plan picks {chosen.sample} × {chosen.data}, the clock {quickest.sample} × "
          f"{quickest.data}: a step of the plan's choice takes {regret:.0%} longer")
print(f"\nduring the race, {load:.1f} processes wanted one of {usable_cores()} cores")

# %% [markdown]
# **Explain.** The times are *your* machine's. The model leaves things out, and you may see each of
# them above:
#
# - It knows nothing of **other programs**. Look at the last line: if more processes wanted a core
#   than there are, every number here is shaky. If they came during the race, steps took longer than
#   planned; if they came while the constants were measured, shorter.
# - **Waiting** adds to it. A step of two ranks is as long as the longer of two noisy times.
# - For a **small network** nearly everything is overhead and latency, and these vary most.
#
# Choosing is easier than predicting. A plan that is wrong by a fifth for *every* layout still picks
# the right one. Time is an estimate, then. Bytes are not: they are counted, and must be exact.

# %%
first = digits.train_x[: 2 * B], digits.train_y[: 2 * B]
for objective in (spnb.ELBO(), spnb.PredictiveNLL()):
    for layout in ways[1:]:
        run = pool.run(spnb.fit, posteriors["perceptron"], first, objective=objective,
                       layout=layout, num_samples=S, batch_size=B)[0]
        counted = run.history.bytes_per_step
        planned = predict(plans["perceptron"].costs, here, layout, S, B, objective).bytes_per_step
        print(f"{type(objective).__name__:15}{layout.sample} × {layout.data}: planned {planned:,}, "
              f"counted {counted:,.0f} bytes a step, {'' if planned == counted else 'NOT '}equal")
pool.close()  # all that follows is arithmetic

# %% [markdown]
# ## Machines that are not here
#
# The same arithmetic works for machines that you only know from a data sheet. **Nothing in this
# section was run.** The network's operations are *counted*, on PyTorch's `meta` device, where
# tensors have a shape and no memory. The constants come from the vendor's data sheet and from
# assumptions: matrix products, memory and links reach a fixed part of their peak, each operation
# takes a fixed time to launch, nothing overlaps. Believe such a plan within a factor of two. It
# tells you *which* layout is promising and *what* will limit it.
#
# The network: a vision transformer on images of 224 × 224 pixels, large enough to need a cluster.

# %%
with torch.device("meta"):
    net = ViT(image_size=224, patch=16, dim=1024, depth=scale.pick(ci=6, laptop=16, node=16),
              heads=16, hidden=4096, classes=1000)
S, B = 16, 256
giant = spnb.MeanField(spnb.BayesianModel(net))
images, labels = torch.empty(B, 3, 224, 224, device="meta"), torch.zeros(B, device="meta").long()

h100 = spnb.machines.H100
large = spnb.plan(giant, (images, labels), num_samples=S, machine=h100, world_size=32)
print(f"P = {large.costs.weights / 1e6:.0f} million weights; S = {S}, B = {B}, 32 ranks")
print(f"source: {h100.source}")
print(f"assumed: {spnb.machines.EFFICIENCY:.0%} of the peaks, "
      f"{1e6 * spnb.machines.LAUNCH:.0f} µs to launch an operation\n")
print(large)

# %% [markdown]
# Two questions. **Strong scaling:** the same S on more and more ranks; how fast does a step get?
# **Weak scaling:** S grows with the ranks, here four samples for each; does the step time stay? At
# each world size we take the fastest layout. (Memory comes in the next section.)
#
# **Predict:** in which of the two does the all-reduce win in the end, and why?

# %%
def fastest(world_size, num_samples):
    """The fastest layout: what `spnb.plan` does, without counting the passes again."""
    found = [predict(large.costs, h100, layout, num_samples, B)
             for layout in layouts(world_size, num_samples, B)]
    return min(found, key=lambda p: p.seconds)


worlds = [2**i for i in range(11)]
curves = {"strong": [fastest(w, S) for w in worlds], "weak": [fastest(w, 4 * w) for w in worlds]}
strong, weak = curves["strong"], curves["weak"]
late = [p.layout.size for p in strong if p.parts["all-reduce"] > p.parts["passes"]]
print(f"strong, S = {S}: " + (f"the all-reduce takes longer than the passes from W = {late[0]} on"
                              if late else "the passes take longer than the all-reduce throughout"))
mixed = [p.layout.size for p in strong if min(p.layout.sample, p.layout.data) > 1]
print(f"  a hybrid is fastest for W = {', '.join(map(str, mixed)) or 'none of these'}")
for w in (8, 64, 1024):
    at = worlds.index(w)
    gain, kept = strong[0].seconds / strong[at].seconds, weak[0].seconds / weak[at].seconds
    print(f"W = {w:5}: strong {gain:6.1f} times as fast ({gain / w:4.0%} of ideal); "
          f"weak, S = {4 * w:5}: {kept:4.0%} of ideal")

# %%
fig, panels = figures.new(9.8, 4.4, columns=2, sharey=True)
for ax, (kind, found) in zip(panels, curves.items(), strict=True):
    for part in ("passes", "draw", "update", "all-reduce"):
        points = [(p.layout.size, 1e3 * p.parts[part]) for p in found if p.parts[part]]
        ax.plot(*zip(*points, strict=True), **LOOKS[part].line, label=part)
    ax.plot(worlds, [1e3 * p.seconds for p in found], "k-", lw=2.5, label="the whole step")
    ax.axvline(h100.ranks_per_host, color=figures.GREY, lw=1.2, ls=(0, (1, 2)), label="one host")
    shown = [f"{p.layout.size}\n{p.layout.sample}×{p.layout.data}" for p in found]
    ax.set(xscale="log", yscale="log", title=f"{kind} scaling", xlabel="ranks W, fastest layout")
    ax.set(xticks=worlds[::2], xticklabels=shown[::2])
    ax.minorticks_off()
panels[0].yaxis.set_major_formatter("{x:,.0f}")
panels[0].set_ylabel("ms a step, predicted")
fig.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=6)
figures.footnote(fig, f"predicted, not run: {h100.name}; B = {B}, ELBO")
figures.show(fig, alt="Predicted step time by kind against W, both axes logarithmic. " + " ".join(
    f"{kind.capitalize()}: " + ", ".join(f"{human_time(p.seconds)} on {p.layout.size}"
    for p in found[::2]) + "." for kind, found in curves.items()))

# %% [markdown]
# **Explain.** In strong scaling the passes shrink with W, and the gradient does not: every rank
# still sends 2P numbers. So the all-reduce must win in the end, sooner or later; it is the floor
# under the black line. It jumps beyond one host, where messages leave the fast links inside. In
# weak scaling each rank keeps its work, and the traffic stays as it is. Their ratio hardly moves.
# *That* is what sampling parallelism is for: not the same S faster, but more samples in the same
# time.
#
# And look below the axis. Once W exceeds S, samples alone cannot feed the ranks. Strong scaling
# *has* to become hybrid.
#
# ## When memory decides
#
# A rank needs room for three things. It has P weights, its own samples, and its own rows:
#
# | what | how many numbers | in it |
# |---|---|---|
# | its **state** | 9 P | means, scales; their gradients; Adam's moments (4); the net's weights |
# | **one sample** in evaluation | 5 P | weights, σ; the gradients of both; noise |
# | **activations** | of one sample, for its rows | what the way back needs, at the fullest moment |
#
# For the ELBO that is all, however large S is: samples are evaluated one after the other in the
# same memory. An objective that needs all predictions *before* the backward pass must keep every
# sample's activations until then, and 2 P more numbers for each further sample: its weights and
# noise. Or it **recomputes**: with `recompute=True` it evaluates each sample once to learn its
# prediction, forgets the rest, and evaluates it again. Time for memory.
#
# (This counts what has to be there. Allocators and libraries take some more.)
#
# Take the large network, an objective of the mean prediction, and one host of eight GPUs.
#
# **Predict:** which of the four layouts fit? What helps more: to cut the batch, to cut the samples,
# or to recompute?

# %%
W, wanted = 8, spnb.PredictiveNLL()
cases = {(w, again): predict(large.costs, h100, w, S, B, wanted, again, h100.memory)
         for w in layouts(W, S, B) for again in (False, True)}
gb = large.costs.itemsize * large.costs.weights / 1e9  # of one number for each weight
kinds = {"state, 9 P": (0, 9 * gb), "one sample, 5 P": (9 * gb, 5 * gb), "kept": (14 * gb, 0)}
looks = [LOOKS[kind].bar for kind in ("passes", "draw", "all-reduce")]
clear = {"facecolor": "white", "lw": 0, "pad": 1}
fig, ax = figures.new(8.8, 4.2)
for (name, (left, width)), look in zip(kinds.items(), looks, strict=True):
    widths = [width or p.memory / 1e9 - left for p in cases.values()]
    ax.barh(range(len(cases)), widths, 0.7, left, label=name, **look)
for place, p in enumerate(cases.values()):
    note = human_time(p.seconds) + ("" if p.fits else ", does not fit")
    ax.text(p.memory / 1e9 + 2, place, note, va="center", fontsize=9.5, bbox=clear)
ax.axvline(h100.memory / 1e9, color=figures.VERMILLION, ls="--", label="memory of the GPU")
names = [f"{w.sample} × {w.data}, {'recompute' if again else 'keep all'}" for w, again in cases]
ax.set(yticks=range(len(cases)), yticklabels=names, xlabel="GB a rank, predicted")
ax.set_xlim(right=1.28 * max(p.memory for p in cases.values()) / 1e9)
ax.grid(axis="y", visible=False)
fig.legend(loc="outside upper center", ncols=4)
figures.footnote(fig, f"predicted, not run: {h100.name}; S = {S}, B = {B}, predictive NLL")
figures.show(fig, alt=f"Memory of a rank, limit {human_bytes(h100.memory)}. " + "; ".join(
    f"{n}: {human_bytes(p.memory)}" for n, p in zip(names, cases.values(), strict=True)) + ".")

# %% [markdown]
# **Explain.** With everything kept, the activations of *all* S × B pairs lie somewhere on the eight
# ranks, however you cut them: that part is nearly the same in every layout. What differs is small.
# More ranks along `sample` means fewer extra weights to keep. With `recompute` one sample's
# activations are left, and now `data` ranks help: they have fewer rows. The price stands beside the
# bars.
#
# `spnb.plan` takes a limit, and `best` is the fastest layout within it. Say other programs hold a
# quarter of each GPU:

# %% tags=["aside"]
limit = 0.75 * h100.memory
for again in (False, True):
    found = spnb.plan(giant, (images, labels), num_samples=S, machine=h100, world_size=W,
                      objective=wanted, recompute=again, memory_limit=limit)
    try:
        best = found.best
        print(f"recompute={again}: {best.layout}, {human_bytes(best.memory)} a rank of "
              f"{human_bytes(limit)}, {human_time(best.seconds)} a step")
    except MemoryError as refusal:
        print(f"recompute={again}: {refusal}")

# %% [markdown]
# ## A rule of thumb
#
# You need no planner for a first guess:
#
# 1. **Keep every rank busy.** Take a layout whose largest tile is smallest.
# 2. **If several tie, cut the samples.** That cuts the drawing, too, and the launches of small
#    operations. Cutting the rows cuts neither.
# 3. **If it does not fit**, move ranks from `sample` to `data`, and recompute where the objective
#    needs all predictions.
# 4. **If the all-reduce is longest**, more ranks will not make the same S faster. Take a larger S.
#
# ### Exercise 4 · difficulty 3/5 · 10 minutes
#
# Write rules 1 and 2. The checker tells you how often your rule names the planner's own choice for
# the large network, up to 1,024 GPUs.


# %% tags=["exercise"]
def choose(world_size, num_samples, num_rows):
    """The layout ``(sample, data)`` by rules 1 and 2; no rank may be without work."""
    # BEGIN SOLUTION
    # STUB: sample, data = ..., ...
    def largest_tile(sample):
        return math.ceil(num_samples / sample) * math.ceil(num_rows * sample / world_size)

    possible = [
        n for n in range(1, min(world_size, num_samples) + 1)
        if world_size % n == 0 and world_size // n <= num_rows
    ]
    sample = min(possible, key=lambda n: (largest_tile(n), -n))
    data = world_size // sample
    # END SOLUTION
    return sample, data


# %% [markdown] tags=["hint"]
# Go through the divisors of `world_size`. Leave out those with more sample ranks than samples, or
# more data ranks than rows. `min` with a key that is a pair compares the first, then the second:
# `(largest tile, -sample)`.

# %% [markdown] tags=["expected"]
# `choose(8, 16, 64)` is `(8, 1)`, `choose(8, 5, 64)` is `(1, 8)`, `choose(8, 4, 64)` is `(4, 2)`.

# %%
check.exercise_4(choose, large)

# %% [markdown]
# Where the two differ, the planner weighs what the rule forgets. A rank draws *all* its samples,
# however few rows it has for them. With many ranks it can pay to take a somewhat larger tile, and
# to draw less.
#
# ## Explore
#
# All of this notebook under a few sliders. The bars are predictions, a diamond is a step that was
# really measured above. Beyond two ranks, *this machine* means several hosts like it, joined by
# 10 Gb/s Ethernet. The A100s and H100s are those of the data sheets. Nothing but your own two
# ranks was ever run. Try these, and say beforehand what will happen:
#
# 1. This machine, two ranks: go from S = 8 down to 1. When does `1 × 2` become the best?
# 2. H100, eight ranks, S = 8. Why is `1 × 8` so much worse than `8 × 1`, though all tiles are the
#    same? What are the passes of a *small* network on a large GPU made of?
# 3. H100 with the large ViT, 64 ranks, S = 16. What limits it? What if you raise S, what if you
#    raise W?
# 4. The same with the predictive NLL, and a memory limit that goes down. Which layout is the last
#    to fit? Then recompute.

# %%
vit = posteriors["ViT"]
planned = {"this machine": replace(plans["ViT"], machine=replace(
    here, between=spnb.machines.ETHERNET_10))}
for name, machine in {"A100": spnb.machines.A100, "H100": h100}.items():
    planned[name] = spnb.plan(vit, digits.train, num_samples=8, batch_size=64, machine=machine,
                              world_size=1)
planned["H100, large ViT"] = large
measured = [
    Measured("this machine", w, samples=8, rows=64, seconds=value / 1000)
    for (name, w), value in medians.items() if name == "ViT"
]
planner = layout_planner(planned, measured=measured, ranks=2, samples=8, rows=64)
planner

# %% [markdown]
# ## You can now
#
# - lay out ranks on two axes, and say which group of ranks speaks about what
# - show that a hybrid run equals the serial one, also where nothing divides evenly
# - work out how busy the ranks of a layout are
# - predict the time of a step from a few measured constants, and check the prediction
# - read a plan for machines that you do not have, and know what it rests on
# - choose a layout, with or without a memory limit
#
# **Next:** notebook 06 asks when averaging gradients is *not* exact.
#
# ## References
#
# - Asena Karolin Özdemir, Lars H. Heyen, Arvid Weyrauch, Achim Streit, Markus Götz, Charlotte
#   Debus: *Sampling Parallelism for Fast and Efficient Bayesian Learning*,
#   [arXiv 2604.04736](https://arxiv.org/abs/2604.04736), 2026.
# - R. W. Hockney: *The communication challenge for MPP*, Parallel Computing 20, 1994: α and β.
# - R. Thakur, R. Rabenseifner, W. Gropp: *Optimization of Collective Communication Operations in
#   MPICH*, International Journal of High Performance Computing Applications 19, 2005.
# - T. Chen, B. Xu, C. Zhang, C. Guestrin: *Training Deep Nets with Sublinear Memory Cost*,
#   [arXiv 1604.06174](https://arxiv.org/abs/1604.06174), 2016: recomputing.
# - L. Beyer, X. Zhai, A. Kolesnikov: *Better plain ViT baselines for ImageNet-1k*,
#   [arXiv 2205.01580](https://arxiv.org/abs/2205.01580), 2022: the vision transformer.
# - PyTorch: [DeviceMesh](https://docs.pytorch.org/docs/stable/distributed.html#devicemesh), and
#   [meta device](https://docs.pytorch.org/docs/stable/meta.html).
# - NVIDIA: *H100 Tensor Core GPU* and *A100 Tensor Core GPU*, data sheets, 2023 and 2021.
# - E. Alpaydin, C. Kaynak: *Optical Recognition of Handwritten Digits*, UCI Machine Learning
#   Repository, 1998 (the data).
