# %% [markdown]
# # Weather: a Bayesian Swin
#
# How warm will it be tomorrow, the day after, and the day after that? Not at one place, but on a
# map of North America. In this notebook a Swin transformer turns maps into maps. A prior makes it
# Bayesian, and its weight samples are shared between two workers. Then comes the question of the
# paper: what if the network has not two hundred thousand weights, but two hundred *million*? You
# will count, before you rent anything, what each GPU must hold.
#
# **You will be able to**
#
# - hold a weather forecast against the honest simple ones, and say when they win
# - explain how windows and shifted windows let a token see the map
# - score maps: weighted errors, anomaly correlation, CRPS
# - read the spread–skill ratio, and say what the weight samples contribute to it
# - count the memory that a Bayesian network needs, part by part, on every GPU of a layout
# - choose a layout, and a way to evaluate samples, that fits the GPUs you have
#
# It takes about 70 minutes to work through. Run from top to bottom without stopping, the notebook
# needs about a minute at the `ci` scale on two cores and about three minutes at the `laptop` scale
# (set `SPNB_SCALE` before JupyterLab starts to choose).

# %%
import os
import time

import numpy as np
import torch
from torch.profiler import profile

import spnb
from spnb.maths import scores
from spnb.maths.swin import SIZES, Swin, stage
from spnb.run.footprint import footprint
from spnb.run.memory import of_rank
from spnb.teach import datasets, figures, scale
from spnb.teach.checks import nb09 as check
from spnb.teach.explore.memory_budget import WAYS, budget, memory_budget
from spnb.teach.explore.weather_map import spread_of, weather_map
from spnb.teach.passport import provenance
from spnb.teach.recipes import weather as recipe
from spnb.teach.weather import LEADS, baselines, weather

torch.set_num_threads(1)  # the workers want the cores
SEED = 0
settings = recipe.SETTINGS[scale.name()]
print(f"scale: {scale.name()}, {settings}")
print(provenance(SEED))

# %% [markdown]
# ## Maps, and what is usual
#
# Every six hours of two years there is a field: 25 × 53 temperatures near the ground. Most of what
# you see in such a field is not news. It is colder in the north, in winter, and at night. Everybody
# knows that. So first take away what is *usual* at each place, day of the year and hour of the day,
# the **climatology**. What is left, the **anomaly**, is the weather.
#
# The climatology is estimated from the training part alone, like everything else. The parts follow
# each other in time, and six days between them are left out.

# %%
fields = datasets.air_fields()
data = weather(settings.every, fields)
print(fields, fields.sentence, sep="\n")
for name in ("train", "validation", "test"):
    print(f"{name:11}{len(getattr(data, name)):6,} forecasts")
pool = spnb.WorkerPool(2)  # the two workers start while you read on

number = int((data.test.times - fields.index(2014, 11, 10)).abs().argmin())
extent = (-160, -30, 15, 75)
fig, panels = figures.new(11.0, 3.5, columns=3)
now = int(data.test.times[number])
for ax, field, title in zip(
        panels, (data.test.values[now], data.test.usual[now], data.test.frames[number, 0]),
        ("Temperature", "What is usual", "The difference: weather"), strict=True):
    how = {"cmap": "RdBu_r", "vmin": -20, "vmax": 20} if title.startswith("The") else {"vmin": 230}
    picture = ax.imshow(field, extent=extent, aspect="auto", **how)
    fig.colorbar(picture, ax=ax, location="bottom", aspect=30, label="K")
    ax.set(title=title, xlabel="longitude (°E)")
    ax.grid(visible=False)
panels[0].set_ylabel("latitude (°N)")
figures.show(fig, alt="Three maps of one day in November: temperature, the usual temperature, and "
             f"their difference, between {data.test.frames[number, 0].min():.0f} and "
             f"{data.test.frames[number, 0].max():+.0f} K.")

# %% [markdown]
# ## Simple forecasts
#
# Before any network: what can one say with no effort at all?
#
# | forecast | says |
# |---|---|
# | **persistence** | it stays as it is now |
# | **climatology** | it will be as usual |
# | **damped persistence** | of today's anomaly a part is left, at each place that of the average |
# | **ridge** | linear regression from all points of the last three maps |
# | **damped ridge** | the same, for what damped persistence leaves |
#
# **Predict:** which error grows fastest with the lead time? Which does not grow at all? Where do
# the two lines cross?

# %%
simple = {name: forecast(data.test) for name, forecast in baselines(data).items()}


def rmse(forecast):
    """Weighted error for each lead time, in kelvin."""
    error = forecast - data.test.anomalies
    return (error.square() * data.area).mean((0, 2, 3)).sqrt().tolist()


fig, ax = figures.new(7.2, 3.6)
for index, (name, forecast) in enumerate(simple.items()):
    ax.plot(LEADS, rmse(forecast), **figures.look(index), label=name)
ax.set(xlabel="lead time (hours)", ylabel="RMSE (K)", xticks=LEADS, ylim=(0, None))
ax.legend(ncols=2)
figures.footnote(fig, f"{len(data.test):,} forecasts, July to December 2014")
figures.show(fig, alt="RMSE at 24, 48 and 72 hours. " + " ".join(
    f"{name}: {', '.join(f'{v:.2f}' for v in rmse(f))} K." for name, f in simple.items()))

# %% [markdown]
# **Explain.** Persistence is good for a day and bad for three: the weather moves on. The
# climatology is equally bad at all times. Damped persistence goes smoothly from one to the other.
# That is what a forecast *should* do when it knows less and less. And ridge regression, with its
# penalty chosen on the validation part, is a strong rival. Keep it in mind.
#
# ### Exercise 1 · difficulty 2/5 · 6 minutes
#
# The grid has as many points in a row near the pole as in one near the equator. But the cells there
# are smaller. Write the error in which each *area* counts the same: weigh the squares by the cosine
# of the latitude, divided by its mean over the rows. `error` is `[N, H, W]`, `latitude` is `[H]` in
# degrees.


# %% tags=["exercise"]
def area_rmse(error, latitude):
    """Root of the area-weighted mean squared error."""
    # BEGIN SOLUTION
    # STUB: value = ...
    weight = torch.deg2rad(latitude).cos()
    weight = weight / weight.mean()
    value = (error.square() * weight[:, None]).mean().sqrt()
    # END SOLUTION
    return value


# %% [markdown] tags=["hint"]
# `torch.deg2rad` makes radians. A weight for each row must stand along the second-last dimension:
# `weight[:, None]`.

# %% [markdown] tags=["expected"]
# If all errors are 2 K, the result is 2 K, whatever the latitudes.

# %%
check.exercise_1(area_rmse)

# %% [markdown]
# ## Windows
#
# Attention lets every token look at every other one. On a map that is too much: twice the width
# and height give four times the tokens and sixteen times the pairs. A Swin transformer cuts the map
# into **windows** and lets tokens look around within their own. Every second block **shifts** the
# windows by half, so that news can pass the borders.
#
# You can see that without reading any code. Ask which inputs *change* the output of one token: that
# is a gradient. Here are 20 × 20 tokens in windows of 4 × 4.
#
# **Predict:** how large is the patch that one token sees after one block? And after two?

# %%
torch.manual_seed(SEED)
blocks = stage((20, 20), window=4, dim=8, depth=4, heads=2, ratio=2.0)
fig, panels = figures.new(9.6, 3.3, columns=4)
seen = []
for ax, depth in zip(panels, (1, 2, 3, 4), strict=True):
    tokens = torch.randn(1, 20, 20, 8, requires_grad=True)
    blocks[:depth](tokens)[0, 9, 9].sum().backward()
    reach = tokens.grad[0].abs().sum(-1) > 0
    seen.append(int(reach.sum()))
    ax.imshow(reach, cmap="Blues", vmin=0, vmax=1.6)
    ax.plot(9, 9, "o", color=figures.VERMILLION, ms=7)
    for edge in (3.5, 7.5, 11.5, 15.5):
        ax.axhline(edge, color=figures.GREY, lw=0.8)
        ax.axvline(edge, color=figures.GREY, lw=0.8)
    ax.set(title=f"{depth} block{'s' * (depth > 1)}: {seen[-1]} tokens", xticks=[], yticks=[])
    ax.grid(visible=False)
figures.footnote(fig, "blue: what can reach the marked token; grey: the unshifted windows")
figures.show(fig, alt="Which of 400 tokens a marked one can see after 1 to 4 blocks: "
             + ", ".join(map(str, seen)) + ".")

# %% [markdown]
# **Explain.** One window of 16 after one block. The second, shifted block reaches over the borders,
# and so on. Deeper in the network four tokens are merged into one, so that the same small window
# spans twice the distance. The decoder goes the way back up, with a shortcut from each height.
#
# ## The Bayesian Swin
#
# The network sees the last three maps as anomalies, and four maps that tell places apart. For each
# point and lead time it gives a mean and a log-scale, of what *damped persistence leaves*. It is a
# plain module. Only the prior makes it Bayesian.

# %%
units = recipe.Units.of(data)
train = units.inputs(data.train), units.targets(data.train)
net = recipe.network(settings, data.places)
model = spnb.BayesianModel(net, prior=spnb.priors.fan_in(settings.gain),
                           likelihood=recipe.LIKELIHOOD)
options = {"objective": spnb.ELBO(temperature=settings.temperature),
           "num_samples": settings.num_samples, "batch_size": settings.batch_size,
           "epochs": settings.epochs, "learning_rate": settings.learning_rate, "seed": SEED,
           "schedule": "cosine", "warmup_steps": settings.warmup}
begin = time.perf_counter()
start, shared = spnb.MeanField(model, init_scale=settings.init_scale), spnb.Layout(sample=2)
fitted = pool.run(spnb.fit, start, train, layout=shared, **options)[0]
print(f"P = {len(start.loc):,} weights, S = {settings.num_samples}, "
      f"{len(fitted.history.steps)} steps on two ranks: "
      f"{time.perf_counter() - begin:.0f} s")
draws = pool.run(spnb.predict, fitted.posterior, units.inputs(data.test), layout=shared,
                 num_samples=settings.test_samples)[0]
draws = units.forecast(draws, data.test)  # anomalies in kelvin, [S, N, 2 · leads, H, W]
print(f"forecasts {list(draws.shape)}")

# %% [markdown]
# ## Who wins?
#
# Every simple forecast gets a spread as well: the errors that it made in training, at each place.

# %%
dressed = {recipe.SWIN: draws}
for name, forecast in baselines(data).items():
    error = (data.train.anomalies - forecast(data.train)).square().mean(0).sqrt()
    spread = error.log().expand_as(data.test.anomalies)
    dressed[name] = torch.cat([simple[name], spread], -3).unsqueeze(0)
truth, noise, daily = data.test.anomalies, recipe.LIKELIHOOD, slice(None, None, 4)
table = {}
for name, of in dressed.items():
    crps = scores.crps(of[:, daily], truth[daily], noise)  # once a day: hours later is no news
    table[name] = {
        "RMSE (K)": scores.weighted_rmse(of, truth, noise, data.area).tolist(),
        "CRPS (K)": (crps * data.area).mean((0, 2, 3)).tolist(),
        "correlation": scores.anomaly_correlation(of, truth, noise, data.area, torch.zeros(()))
        .nan_to_num(0.0).tolist(),
        "spread / error": scores.spread_skill(of, truth, noise, data.area).tolist()}
print(f"{'at 24 / 48 / 72 hours':22}" + "".join(f"{score:22}" for score in table[recipe.SWIN]))
for name, row in table.items():
    print(f"{name:22}" + "".join(f"{' / '.join(f'{v:.2f}' for v in r):22}" for r in row.values()))
for place, lead in enumerate(LEADS):
    best = min(table, key=lambda name: table[name]["RMSE (K)"][place])
    print(f"smallest RMSE at {lead} h: {best}")

# %% [markdown]
# **Explain.** Read who wins where, and be careful. At the `ci` scale the network has learned from
# one in eight forecasts, for seconds, and the *damped ridge* is a linear formula that needs no GPU
# at all. At the `laptop` scale the network had won by a little in our run, and by least at three
# days. Little data, many weights: that is where simple forecasts are strong.
#
# One place needs a warning. Neighbouring points, and maps six hours apart, tell almost the same.
# Thousands of forecasts are therefore much fewer *independent* ones, and small differences in such
# a table are noise.

# %%
near = truth[daily, 0].flatten(1)
east, days = truth[daily, 0, :, :-1].flatten(), truth[daily, 0, :, 1:].flatten()
alike = torch.corrcoef(torch.stack([east, days]))[0, 1].item()
spectrum = torch.linalg.svdvals(near - near.mean(0)).square()
patterns = (spectrum.sum() ** 2 / spectrum.square().sum()).item()
print(f"Neighbours 2.5° apart correlate by {alike:.2f}. The {near.shape[1]:,} points of a map vary "
      f"like about {patterns:.0f} independent numbers.")

# %% [markdown]
# The likelihood does not know that. It counts every point as news of its own, and would be far too
# sure. A **temperature** above 1 takes it back, as if so many times fewer points were there. It was
# chosen on the validation part, as T = 30: a prior thirty times as heavy as Bayes' rule has it.
#
# ## Does it know how good it is?
#
# A forecast with a spread makes a promise: *I expect to be wrong by this much.* Over many days the
# spread must equal the error of the mean. Their ratio is the **spread–skill ratio**: below 1, too
# sure; above 1, too cautious.
#
# The spread has two parts: the noise that each sample expects (aleatoric), and how far the samples
# are apart (epistemic).
#
# **Predict:** how large is the ratio if you take the samples' spread alone?

# %%
between = scores.spread_skill(draws, truth, noise, data.area, noise=False).tolist()
fig, ax = figures.new(7.2, 3.4)
for index, (label, values) in enumerate({
        "Swin, all of its spread": table[recipe.SWIN]["spread / error"],
        "Swin, spread between the samples alone": between,
        "damped ridge, spread of its past errors": table["damped ridge"]["spread / error"],
}.items()):
    ax.plot(LEADS, values, **figures.look(index), label=label)
ax.axhline(1, color=figures.GREY, lw=1)
ax.set(xlabel="lead time (hours)", ylabel="spread / error", xticks=LEADS, ylim=(0, 1.5))
ax.legend(loc="center right")
figures.footnote(fig, f"S = {settings.test_samples} samples, {len(data.test):,} forecasts")
figures.show(fig, alt="Spread over error by lead time: all of the Swin's spread "
             + ", ".join(f"{v:.2f}" for v in table[recipe.SWIN]["spread / error"])
             + "; between its samples alone " + ", ".join(f"{v:.2f}" for v in between) + ".")

# %% [markdown]
# **Explain.** The samples alone are far too much alike. Weather centres know this well: an ensemble
# that only varies what the *model* does not know is *under-dispersed*. Most of tomorrow's
# uncertainty is not in the weights. It is in the weather, which three coarse maps do not tell. Here
# the log-scales carry it.
#
# ### Exercise 2 · difficulty 3/5 · 8 minutes
#
# Write the ratio for an ensemble `members [S, N]` without noise, and `truth [N]`. If truth and
# members come from the same distribution with variance v, the mean of S members misses the truth by
# v + v / S on average. So the fair spread is (S + 1) / S times the variance of the members,
# averaged over the cases; then comes the root.


# %% tags=["exercise"]
def spread_over_error(members, truth):
    """Spread–skill ratio of an ensemble ``[S, N]``."""
    # BEGIN SOLUTION
    # STUB: ratio = ...
    size = len(members)
    spread = (size + 1) / size * members.var(0).mean()
    ratio = (spread / (members.mean(0) - truth).square().mean()).sqrt()
    # END SOLUTION
    return ratio


# %% [markdown] tags=["hint"]
# `members.var(0)` divides by S - 1, as it should. Average over the cases before you take roots.

# %% [markdown] tags=["expected"]
# For members and truth from one distribution a number close to 1.

# %%
check.exercise_2(spread_over_error)

# %% [markdown]
# ## The map
#
# **Predict – move – explain.** Before you move: where on the map will the spread be largest, over
# the sea or over the plains? And how does it change from one day ahead to three? Find out. Then
# look at the *spread between the samples*: does it show the same places? Last, choose
# *climatology*. What does its forecast look like, and why is its spread the same on every day?

# %%
mean, spread, of_samples = spread_of(draws, noise)
means, spreads = {recipe.SWIN: mean}, {recipe.SWIN: spread}
for name in ("damped ridge", "persistence", "climatology"):
    means[name] = simple[name].expand_as(truth)
    spreads[name] = noise(dressed[name]).stddev[0, 0]
explorer = weather_map(data, means, spreads, of_samples)
explorer.set(day=number)
explorer

# %% [markdown]
# ## Two hundred million weights
#
# So much for a small Swin. The paper trains one of 200 million parameters. What does that need?
# Make it, but without memory: on torch's *meta device* tensors have shapes and no content.

# %%
shape = (3 + 4, 2 * len(LEADS))  # maps that go in, and come out
footprints, B = {}, 16
x, y = torch.empty(B, 7, 25, 53, device="meta"), torch.empty(B, 3, 25, 53, device="meta")
for name in scale.pick(ci=("toy", "small"), laptop=tuple(SIZES), node=tuple(SIZES)):
    begin = time.perf_counter()
    with torch.device("meta"):
        giant = Swin((25, 53), *shape, **SIZES[name])
    posterior = spnb.MeanField(spnb.BayesianModel(giant, likelihood=noise))
    found = footprints[f"{name}, {len(posterior.loc) / 1e6:.1f} M"] = footprint(posterior, x, y)
    print(f"{name:6} P = {found.weights:12,}; a forward pass of {B} maps keeps "
          f"{found.kept(B) / 1e9:6.3f} GB ({time.perf_counter() - begin:.1f} s to count)")

# %% [markdown]
# The network was not run. Its operations were only *walked through*, with tensors that have no
# content, and each new tensor's bytes were added up until it was let go.
#
# What must a rank hold? The large Swin, S = 16 samples, B = 16 maps, single precision:

# %%
large = list(footprints.values())[-1]
print(f"{'':24}" + "".join(f"{way:>18}" for way in WAYS))
bills = [budget(large, spnb.Layout(), 16, B, way) for way in WAYS]
for part in bills[0].parts:
    print(f"{part:24}" + "".join(f"{bill.parts[part] / 1e9:15.2f} GB" for bill in bills))
print(f"{'one GPU, all in all':24}" + "".join(f"{bill.total / 1e9:15.2f} GB" for bill in bills))

# %% [markdown]
# **Explain.** A weight has a mean and a scale; both have a gradient and two moments in Adam. That
# is 8 numbers, and with the network's own value 9, whatever S is. What comes on top depends on
# *how* samples are evaluated:
#
# - **one by one**: each sample is drawn, evaluated and forgotten. This works for the ELBO, and with
#   `recompute=True` for every objective. Memory does not grow with S.
# - **all graphs kept**: an objective of the mean prediction needs all predictions before the first
#   way back, so S graphs wait.
# - **all at once**: `torch.vmap` evaluates all samples together. So do several libraries.
#
# ### Exercise 3 · difficulty 2/5 · 6 minutes
#
# Count the first three parts for any network of `weights` weights: means, scales, their gradients,
# and Adam's moments. (Leave out the network's own values.)


# %% tags=["exercise"]
def state_bytes(weights, itemsize):
    """Bytes of parameters, gradients and Adam's moments of a mean-field posterior."""
    # BEGIN SOLUTION
    # STUB: size = ...
    trained = 2 * weights  # means and scales
    size = itemsize * trained * (1 + 1 + 2)
    # END SOLUTION
    return size


# %% [markdown] tags=["hint"]
# How many trained numbers has a weight? Each of them has a gradient and two moments.

# %% [markdown] tags=["expected"]
# For a million weights in single precision: 32 million bytes.

# %%
check.exercise_3(state_bytes)

# %% [markdown]
# ## Believe nothing: measure
#
# A count is worth what a measurement says. No machine here holds the large Swin, so take a small
# one, and let the workers measure what the tensors of a whole training step really take.

# %% tags=["aside"]
os.environ["KINETO_LOG_LEVEL"] = "9"  # the profiler shall keep its notes to itself


def peak_of_tensors(q, data, **options):
    """The most bytes that the tensors of two training steps hold at one moment."""
    with profile(profile_memory=True) as seen:
        spnb.fit(q, data, epochs=2, **options)
    events = sorted(seen.profiler.kineto_results.events(), key=lambda event: event.start_ns())
    return np.cumsum([e.nbytes() for e in events if e.name() == "[memory]"]).max()


rows, cases = 8, {"one by one": {}, "all graphs kept": {"objective": spnb.PredictiveNLL()},
                  "kept, recompute": {"objective": spnb.PredictiveNLL(), "recompute": True},
                  "all at once": {"samples_in_flight": 4}}
batch = train[0][:rows], train[1][:rows]
walked = footprint(start, *batch)
with spnb.WorkerPool(1, device="cpu") as fresh:
    for name, how in cases.items():
        counted = of_rank(walked, spnb.Layout(), 4, rows, **how).total
        measured = fresh.run(peak_of_tensors, start, batch, num_samples=4, batch_size=rows, **how)
        print(f"{name:17} counted {counted / 1e6:7.2f} MB, measured {measured[0] / 1e6:7.2f} MB "
              f"({counted / measured[0] - 1:+.1%})")

# %% [markdown]
# **Explain.** What is evaluated one by one is counted almost to the byte. (A process takes more
# from the system than its tensors hold: libraries, and freed memory that it keeps for later. Leave
# some room.)
#
# ## The budget
#
# Now move. Eight GPUs, four layouts, and the cards that are common.
#
# **Predict – move – explain.**
#
# - Take *all at once* and raise S. From where on does the network not fit a card of 80 GB by
#   itself? Does it fit on eight? In which layout?
# - Now *one by one*. What happens to the bars? So what is sampling parallelism good for there?
# - Take *one by one* and raise B to 256. Which layout helps now?

# %%
memory_budget(footprints, ranks=8, samples=16, rows=B)

# %% [markdown]
# **Explain.** This is the paper's claim, seen from two sides. If all samples are held at once, a
# large Bayesian network with many samples fits on no single GPU, and sharing the samples brings it
# onto eight. But samples do not *have* to be held at once. Evaluated one after the other, they
# share the same memory, and one large card is enough. Then eight GPUs do not make it *possible*.
# They make it *faster*, at best eight times. And what no layout here cuts are the 9 numbers for
# each weight: every rank holds all of them.
#
# (Counted for eight GPUs, not run on them. One H100 has been asked. With four samples of the large
# network and sixteen maps it held 12.6 GB one after the other, and 22.6 GB with kept graphs. The
# count says 12.5 and 22.4. The record is `docs/gpu.json`.)
#
# ### Exercise 4 · difficulty 2/5 · 6 minutes
#
# Write the choice as a function. `totals` maps layouts to GB a rank. Of the layouts within the
# `limit` take the one with the most `data` ranks; None if nothing fits.


# %% tags=["exercise"]
def choose(totals, limit):
    """The layout within the limit that has the most data ranks, or None."""
    # BEGIN SOLUTION
    # STUB: best = ...
    fitting = [layout for layout, total in totals.items() if total <= limit]
    best = max(fitting, key=lambda layout: layout.data, default=None)
    # END SOLUTION
    return best


# %% [markdown] tags=["hint"]
# First a list of those that fit. `max` takes a `key`, and a `default` for an empty list.

# %% [markdown] tags=["expected"]
# With a limit that is too small for all of them: `None`.

# %%
check.exercise_4(choose)

# %%
pool.close()

# %% [markdown]
# ## You can now
#
# - hold a weather forecast against the honest simple ones, and say when they win
# - explain how windows and shifted windows let a token see the map
# - score maps: weighted errors, anomaly correlation, CRPS
# - read the spread–skill ratio, and say what the weight samples contribute to it
# - count the memory that a Bayesian network needs, part by part, on every GPU of a layout
# - choose a layout, and a way to evaluate samples, that fits the GPUs you have
#
# The whole of it is also one command, on one process or many:
# `python -m spnb recipe weather --scale laptop --ranks 2`.
#
# ## References
#
# - E. Kalnay et al.: *The NCEP/NCAR 40-Year Reanalysis Project*, Bulletin of the American
#   Meteorological Society 77, 1996 (the data; NOAA PSL).
# - Z. Liu et al.: *Swin Transformer: Hierarchical Vision Transformer using Shifted Windows*,
#   [arXiv 2103.14030](https://arxiv.org/abs/2103.14030), 2021.
# - H. Cao et al.: *Swin-Unet*, [arXiv 2105.05537](https://arxiv.org/abs/2105.05537), 2021.
# - V. Fortin et al.: *Why Should Ensemble Spread Match the RMSE of the Ensemble Mean?*, Journal of
#   Hydrometeorology 15, 2014.
# - S. Rasp et al.: *WeatherBench 2*, [arXiv 2308.15560](https://arxiv.org/abs/2308.15560), 2024.
# - Asena Karolin Özdemir, Lars H. Heyen, Arvid Weyrauch, Achim Streit, Markus Götz, Charlotte
#   Debus: *Sampling Parallelism for Fast and Efficient Bayesian Learning*,
#   [arXiv 2604.04736](https://arxiv.org/abs/2604.04736), 2026.
