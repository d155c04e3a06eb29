# %% [markdown]
# # What a sample costs
#
# Notebook 01 trained with S = 4 samples of all weights a step. Why 4? Why not 1, or 100? A sample
# is not free: it takes time, it may take memory. And it buys something: a less noisy gradient, a
# better prediction. In this notebook you write the bill, look at the goods, and find out why the
# *samples* are what one wants to share between GPUs.
#
# **You will be able to**
#
# - read the bill of a training step: what each step pays once, and what each sample adds
# - say when more samples need more memory, and when they do not
# - tell how much of a gradient's noise more samples can take away, and how much they cannot
# - use antithetic pairs of samples, and know when they help
# - choose the number of samples of a prediction by its Monte Carlo error
# - say why the samples are the axis to cut
#
# It takes about 60 minutes to work through. Run from top to bottom without stopping, the notebook
# needs about a minute at the `ci` scale on two cores and less than five minutes at the `laptop`
# scale (set `SPNB_SCALE` before JupyterLab starts to choose).

# %%
import math
import os

import numpy as np
import torch
import torch.distributed as dist
from matplotlib.ticker import LogLocator
from torch.profiler import profile

import spnb
from spnb.maths.networks import mlp
from spnb.parallel.devices import usable_cores
from spnb.teach import datasets, figures, scale
from spnb.teach.checks import nb02 as check
from spnb.teach.explore.budget import sample_budget
from spnb.teach.explore.digits import rotate
from spnb.teach.passport import provenance
from spnb.teach.racing import Contender, least_disturbed_step, race, strangers

SEED = 0
SECONDS = scale.pick(ci=3, laptop=40, node=120)  # for the race
REPEATS = scale.pick(ci=8, laptop=64, node=256)  # gradients for one standard deviation
DRAWS = scale.pick(ci=256, laptop=1024, node=4096)  # stored for predictions
print(f"scale: {scale.name()}, {SECONDS} s for the race, {REPEATS} gradients, {DRAWS} draws")
print(provenance(SEED))

# %% [markdown]
# The data are scikit-learn's handwritten digits, with one twist: we train on 0 to 7 alone. The
# network never sees an 8 or a 9. At the end we ask it about them anyway.

# %%
torch.set_num_threads(1)  # one thread here and in each worker: the same everywhere
digits = datasets.digits()
print(digits.sentence)
seen, test_seen = digits.train_y < 8, digits.test_y < 8
x, y = digits.train_x[seen], digits.train_y[seen]
test = (digits.test_x[test_seen], digits.test_y[test_seen])
print(f"{len(x)} images of 0 to 7 to train on, {len(test[1])} to test on")

torch.manual_seed(SEED)
net = mlp((64, 256, 256, 8))
model = spnb.BayesianModel(net, prior=spnb.priors.fan_in(3.0))
posterior = spnb.MeanField(model)
P = len(posterior.loc)
print(f"P = {P:,} weights, each with a mean and a standard deviation")
pool = spnb.WorkerPool(2, threads=1)  # the two workers start while you read on

# %% [markdown]
# ## The bill: time
#
# A bill needs a currency. Milliseconds tell more about your machine than about the method. So we
# also count in **plain passes**: one forward and one backward pass of the same network on the same
# batch, with nothing Bayesian about it. That is what a step of an ordinary network costs, less its
# optimiser.
#
# All run in one worker, in turns, so that a passing load on the machine meets all of them. Shown
# are medians, and whiskers over the middle half. (`race` only sees to the turns and to the clock:
# its steps are those of `spnb.fit`.)
#
# **Predict:** a step with S = 1 takes one plain pass, and a bit. What about S = 32: 32 times as
# long as S = 1? Longer? Shorter?

# %%
SIZES, BATCH = [1, 2, 4, 8, 16, 32], 256


def plain_pass(q, data, num_samples):
    """One forward and one backward pass of the plain network."""
    return lambda: torch.nn.functional.cross_entropy(q.model.net(data[0]), data[1]).backward()


def in_pairs(q, data, num_samples):
    """A step whose samples come in antithetic pairs, of which more later."""
    q.antithetic = True
    return strangers(q, data, num_samples)  # a whole step, shared with nobody


runners = {"plain": Contender(plain_pass, 1, BATCH)}
runners |= {s: Contender(None, s, BATCH) for s in SIZES}
runners |= {f"{s} in pairs": Contender(in_pairs, s, BATCH) for s in (2, 8)}
one = spnb.WorkerPool(1, threads=1)
bill_of_time = race(one, runners, posterior, (x, y), seconds=SECONDS)
plain = bill_of_time.spread("plain")[1]
print(f"a plain pass takes {plain:.2f} ms ({len(bill_of_time.rounds['plain'])} rounds, while "
      f"{os.getloadavg()[0]:.1f} processes wanted one of {usable_cores()} cores)")

# %%
low, middle, high = np.array([bill_of_time.spread(s) for s in SIZES]).T
slope, offset = np.polyfit(SIZES, middle, 1, w=1 / middle)  # every point counts alike

fig, (left, right) = figures.new(9.2, 3.5, columns=2)
whiskers = {"ls": "none", "capsize": 4, "color": figures.BLUE, "marker": "o"}
left.errorbar(SIZES, middle, [middle - low, high - middle], **whiskers, label="measured")
left.plot([0, 32], [offset, offset + 32 * slope], color=figures.BLUE, lw=1, ls="-",
          label=f"{offset:.1f} ms + S × {slope:.2f} ms")
left.plot([0, 32], [0, 32 * plain], **figures.look(1, marker=False), label="S plain passes")
left.set(xlabel="samples S", ylabel="time of a step in ms", title="A straight line")
left.legend()
each = np.array(SIZES) * plain
right.errorbar(SIZES, middle / each, [(middle - low) / each, (high - middle) / each], **whiskers)
right.axhline(1, **figures.look(1, marker=False))
right.set_xscale("log", base=2)
right.set(xlabel="samples S", ylabel="plain passes per sample", title="The offset is shared",
          xticks=SIZES, xticklabels=SIZES, ylim=(0, None))
figures.footnote(fig, f"P = {P:,}, B = {BATCH}, one thread, seed {SEED}")
told = ", ".join(f"{m:.1f} ms at S = {s}" for s, m in zip(SIZES, middle, strict=True))
figures.show(fig, alt=f"Median time of a step: {told}. The line is {offset:.1f} ms plus "
             f"{slope:.2f} ms a sample, {slope / plain:.2f} plain passes. Offset included, a "
             f"sample costs {middle[0] / each[0]:.2f} plain passes at S = 1 and "
             f"{middle[-1] / each[-1]:.2f} at S = 32.")

# %% [markdown]
# **Explain.** The line has two numbers. The **slope** is what one more sample costs: a plain pass,
# and the drawing of its noise. The **offset** is what a step pays once, however many samples there
# are: the divergence from the prior (KL), which depends on no sample, and Adam, which has 2P
# numbers to look after instead of P.
#
# Don't take that on trust. The library can say where the time of a real step goes. Of a dozen steps
# with S = 8 we take the one that other programs disturbed least.

# %%
spans = least_disturbed_step(one, posterior, (x[:BATCH], y[:BATCH]), None, 8, repeats=12)[0]
one.close()
spent = {}
for span in spans:  # there are eight of each that belongs to a sample
    spent[span.name] = spent.get(span.name, 0) + 1000 * span.seconds
every_sample, every_step = ["draw", "forward", "backward"], ["prepare", "divergence", "update"]
rest = spent["step"] - sum(spent[name] for name in every_sample + every_step)
print(f"{'the slope of the line':<28}{slope:6.2f} ms {slope / plain:6.2f} plain passes")
for name in every_sample:
    print(f"    {name:<24}{spent[name] / 8:6.2f} ms {spent[name] / 8 / plain:6.2f}")
print(f"{'its offset':<28}{offset:6.2f} ms {offset / plain:6.2f} plain passes")
for name, value in [*((name, spent[name]) for name in every_step), ("all else", rest)]:
    print(f"    {name:<24}{value:6.2f} ms {value / plain:6.2f}")

# %% [markdown]
# *Draw* is the noise and the weights made of it. *Backward* also adds the gradient of the sample to
# those of the means and scales. *Prepare* makes standard deviations of `rho`, and *update* is Adam.
# *All else* clears the gradient, sees that it is finite, and keeps the books. The parts need not
# add up to the line exactly: they are those of one good step, and the line is drawn through the
# medians of many.
#
# ### Exercise 1 · difficulty 1/5 · 5 minutes
#
# You see somebody else's bill, with two entries: a step took `time_few` with S = `few` samples, and
# `time_many` with S = `many`. Find the offset and the cost of one sample.


# %% tags=["exercise"]
def bill(few, time_few, many, time_many):
    """What a step pays once, and what each sample adds, in the unit of the times."""
    # BEGIN SOLUTION
    # STUB: per_sample = ...
    # STUB: offset = ...
    per_sample = (time_many - time_few) / (many - few)
    offset = time_few - few * per_sample
    # END SOLUTION
    return offset, per_sample


# %% [markdown] tags=["hint"]
# The offset is in both times, so it drops out of their difference. Which samples does the
# difference pay for?

# %% [markdown] tags=["expected"]
# `bill(2, 8.0, 10, 32.0)` is `(2.0, 3.0)`.

# %%
check.exercise_1(bill)

# %% [markdown]
# ## The bill: memory
#
# A forward pass keeps its intermediate results until the backward pass has used them. With S
# samples there are two ways to do that.
#
# - **One at a time**: forward and backward with sample 1, add its gradient to a sum, forget all
#   else, go on with sample 2. That is what `spnb` does by default on a CPU.
# - **All at once**: stack the weights of all samples and let `torch.vmap` evaluate them together.
#   On a GPU, which small networks leave half asleep, this can be faster. The setting is
#   `samples_in_flight=S`, or any number between.
#
# **Predict:** which of the two needs more memory for more samples?
#
# We ask two witnesses. The **tensors**: PyTorch's profiler sees each block of memory that they take
# and give back, to the byte. The **process**: Linux keeps a high-water mark of what it ever held.
# That one needs *fresh* workers, one for each way, and sizes that grow, since what a process once
# had it rarely gives back. (Python's `resource.getrusage` would be the obvious choice, and wrong
# here: a new process inherits its mark from the one that started it.)

# %%
def high_water():
    """The most memory this process has held so far, in MB."""
    with open("/proc/self/status") as status:
        (mark,) = (line.split()[1] for line in status if line.startswith("VmHWM"))
    return int(mark) * 1024 / 1e6


def tensors_peak(task):
    """The most memory that the tensors of a task held at one moment, in MB."""
    with profile(profile_memory=True) as seen:
        task()
    events = sorted(seen.profiler.kineto_results.events(), key=lambda event: event.start_ns())
    return np.cumsum([e.nbytes() for e in events if e.name() == "[memory]"]).max() / 1e6


def memory_bill(q, x, y, sizes):
    """High-water marks above those of a tiny step, and tensors' peaks. Rank 1: all at once."""
    def gradient(s, rows):
        flight = 1 if dist.get_rank() == 0 else s
        spnb.gradients(q, (x[:rows], y[:rows]), num_samples=s, samples_in_flight=flight)

    gradient(2, rows=2)  # so that all libraries are loaded
    base = high_water()
    marks = [gradient(s, len(x)) or high_water() - base for s in sizes]
    return marks, [tensors_peak(lambda s=s: gradient(s, len(x))) for s in sizes]


# %%
os.environ["KINETO_LOG_LEVEL"] = "9"  # the profiler shall keep its notes to itself
with spnb.WorkerPool(2, threads=1, device="cpu") as fresh:
    found = fresh.run(memory_bill, posterior, x[:512], y[:512], SIZES)
memory = dict(zip(["one at a time", "all at once"], found, strict=True))

fig, ax = figures.new(7.2, 3.4)
for i, (way, (process, tensors)) in enumerate(memory.items()):
    ax.plot(SIZES, tensors, **figures.look(i), label=f"{way}: tensors")
    ax.plot(SIZES, process, **figures.look(i) | {"linestyle": "none"}, mfc="white", ms=8,
            zorder=1, label=f"{way}: process")
    print(f"{way:<14} tensors: " + ", ".join(f"{m:.1f}" for m in tensors) + " MB")
ax.set(xlabel="samples S", ylabel="peak memory in MB", ylim=(0, None), xticks=SIZES[2:])
ax.legend()
figures.footnote(fig, f"one gradient, P = {P:,}, B = 512; process: above what it holds anyway; "
                 f"seed {SEED}")
told = "; ".join(
    f"{way}: tensors {tensors[0]:.1f} MB at S = 1 and {tensors[-1]:.1f} MB at S = 32, process "
    f"{process[0]:.0f} and {process[-1]:.0f} MB" for way, (process, tensors) in memory.items())
figures.show(fig, alt=f"Peak memory of a gradient against S. {told}.")
print(f"all at once, each further sample adds {(tensors[-1] - tensors[-2]) / 16:.1f} MB of tensors")

# %% [markdown]
# **Explain.** One at a time, the tensors of a sample take the place of those before: that line is
# flat. All at once, each sample brings its weights, its noise and its intermediate results, and all
# are there at the same moment. (With many samples a process takes more than its tensors do: blocks
# that were given back leave gaps, and not every new one fits into a gap.)
#
# So memory is a question of *how many are in flight*, not of S. Both ways give the same gradient.
#
# ### Exercise 2 · difficulty 2/5 · 5 minutes
#
# You have several GPUs and want all samples in flight. Each rank has a memory of `budget`. Of that,
# `base` is gone before the first sample, and each sample takes `per_sample` (all in whole MB). What
# is the largest S over all ranks together?


# %% tags=["exercise"]
def largest_samples(budget, base, per_sample, ranks):
    """The largest number of samples, over all ranks, that fits: a whole number."""
    # BEGIN SOLUTION
    # STUB: return ...
    return ranks * ((budget - base) // per_sample)
    # END SOLUTION


# %% [markdown] tags=["hint"]
# First find out what fits on *one* rank. `//` rounds down.

# %% [markdown] tags=["expected"]
# `largest_samples(100, 30, 8, 4)` is `32`.

# %%
check.exercise_2(largest_samples)

# %% [markdown]
# ## What you buy: a less noisy gradient
#
# The gradient of a step is a guess. It averages over S random samples of the weights, and over B
# random rows of the data. Ask again, and you get another one. How far does it scatter?
#
# The answer changes as training goes on, so we take two posteriors: *early*, trained for two epochs
# only, and *late*, trained to the end. The two workers train them, with half of the samples each.

# %%
EARLY, LATE, SMALL = 2, 30, 64  # epochs, epochs, rows of a batch
options = dict(layout=spnb.Layout(sample=2), num_samples=4, batch_size=128, learning_rate=0.015,
               schedule="cosine", seed=SEED)
moments = {}
for name, epochs in {"early": EARLY, "late": LATE}.items():
    fitted = pool.run(spnb.fit, posterior, (x, y), epochs=epochs, **options)[0]
    moments[name] = fitted.posterior
    print(f"{name}: {epochs} epochs, typical standard deviation of a weight "
          f"{fitted.posterior.scale.median():.3f}, scores on the test images:",
          {k: round(v, 3) for k, v in spnb.score(fitted.posterior, test).items()})

# %% [markdown]
# `spnb.gradients(..., step=t)` is the gradient of step t: another t, other noise. Now separate the
# two sources. Keep the *batch* fixed and change the noise: what scatters is due to the samples.
# Keep the *noise* fixed (and S large) and change the batch: what scatters is due to the batch.
# Change both, as training does: that is what you really get.
#
# "Noise" is the distance of a gradient from the mean of all of them, root mean squared, for the
# means (`loc`) and the scales (`rho`) apart.
#
# **Predict:** twice the samples: half the noise? And when does the batch have the last word?

# %%
def spread(gradients):
    """Root mean squared distance of some gradients from their mean, for means and scales."""
    return {name: torch.stack([g[name] for g in gradients]).var(0).sum().sqrt().item()
            for name in ("loc", "rho")}


def rows_of(t):
    """The batch of step t."""
    order = torch.randperm(len(x), generator=spnb.Key(SEED).fold("rows", t).generator())
    return x[order[:SMALL]], y[order[:SMALL]]


def noise_of(q, num_samples, steps, rows):
    """Spread of the gradients of some steps, on some batches."""
    return spread([spnb.gradients(q, rows_of(r), num_samples=num_samples, step=t, seed=SEED)
                   for t, r in zip(steps, rows, strict=True)])


BOUGHT, again, many = [1, 2, 4, 8, 16], [0] * REPEATS, range(REPEATS)
noises = {name: {"samples": [noise_of(q, s, many, again) for s in BOUGHT],
                 "both": [noise_of(q, s, many, many) for s in BOUGHT],
                 "batch": noise_of(q, 32, again, many)} for name, q in moments.items()}

# %%
fig, panels = figures.new(9.2, 5.2, rows=2, columns=2, sharex=True, sharey="row")
words, alt = {"loc": "means", "rho": "scales"}, []
for column, (moment, found) in zip(panels.T, noises.items(), strict=True):
    for ax, (key, word) in zip(column, words.items(), strict=True):
        own, both = ([each[key] for each in found[which]] for which in ("samples", "both"))
        ax.plot(BOUGHT, both, **figures.look(1), label="both")
        ax.plot(BOUGHT, own, **figures.look(0) | {"linestyle": "none"}, label="samples alone")
        ax.plot(BOUGHT, [own[0] / s**0.5 for s in BOUGHT], color=figures.BLUE, lw=1, ls="-",
                label="1 / √S")
        ax.axhline(found["batch"][key], **figures.look(2, marker=False), label="batch alone")
        ax.set(xscale="log", yscale="log", title=f"{moment}: {word}")
        ax.set_xticks(BOUGHT, BOUGHT)
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        ax.yaxis.set_major_formatter("{x:g}")
        ax.minorticks_off()
        alt.append(f"{moment}, {word}: both {both[0]:.3g} at S = 1 and {both[-1]:.3g} at S = 16, "
                   f"samples {own[0]:.3g} and {own[-1]:.3g}, batch {found['batch'][key]:.3g}")
fig.supylabel("noise of the gradient", fontsize=11)
for ax in panels[1]:
    ax.set_xlabel("samples S")
fig.legend(*ax.get_legend_handles_labels(), loc="outside upper center", ncols=4)
figures.footnote(fig, f"{REPEATS} gradients for each point, B = {SMALL}, seed {SEED}")
figures.show(fig, alt=f"Noise of the gradient against S. {'; '.join(alt)}.")

# %% [markdown]
# **Explain.** Variances add up: what you get, squared, is samples squared plus batch squared. The
# part of the samples falls as 1/√S, so four times the samples halve it. The part of the batch does
# not care about S at all. Where the two meet, more samples stop being worth their price.
#
# The small print: the dots belong to *one* batch; with another one they lie a little higher or
# lower, so "both" can even be below them. And "batch alone" still has S = 32 samples' noise in it,
# which for the scales makes it an upper limit.

# %%
for moment, found in noises.items():
    for key, word in words.items():
        own, other = found["samples"][0][key], found["batch"][key]
        fall = found["both"][0][key] / found["both"][-1][key]
        print(f"{moment:<5}  {word:<6}  samples = batch at S = {(own / other) ** 2:6.1f};  "
              f"from S = 1 to 16 the noise falls {fall:.1f}-fold")

# %% [markdown]
# Sixteen times the samples *could* divide the noise by 4. Read the column "samples = batch": below
# that S, samples are what your gradient lacks; above it, a larger *batch* would be the better buy.
# Look at the means. A posterior that has just begun to learn is narrow: its samples hardly differ,
# and the rows do. Later it is wide, and the samples matter. (The gradient of a scale is a slope
# *times* the noise of its sample, so there the samples have more to say from the beginning.)
#
# ### Exercise 3 · difficulty 3/5 · 10 minutes
#
# Turn it into a rule. A gradient with one sample has the standard deviation `sample_sd` because of
# the samples, and `batch_sd` because of the batch. What is the smallest S at which the samples'
# share of the *total* variance is at most `share`?


# %% tags=["exercise"]
def samples_worth(sample_sd, batch_sd, share):
    """The smallest S, a whole number of at least 1."""
    # BEGIN SOLUTION
    # STUB: return ...
    ratio = sample_sd**2 / batch_sd**2 * (1 - share) / share
    return max(1, math.ceil(ratio - 1e-9))
    # END SOLUTION


# %% [markdown] tags=["hint"]
# With S samples their variance is v / S, with v = `sample_sd**2`. Write down its share of the
# total, set it equal to `share`, and solve for S. Round up.

# %% [markdown] tags=["expected"]
# `samples_worth(3.0, 1.0, 0.5)` is `9`: then both have a variance of 1.

# %%
check.exercise_3(samples_worth)

# %% [markdown]
# ## Two for the price of less: antithetic pairs
#
# Noise that is drawn can be used twice. Let sample 0 have the noise ε and sample 1 its opposite,
# −ε; the same for samples 2 and 3, and so on. Each sample by itself is distributed as before, so
# averages stay unbiased. But what is *odd* in the noise cancels within each pair, and only half of
# the noise has to be drawn. In `spnb` it is one word: `spnb.MeanField(model, antithetic=True)`.
#
# ### Exercise 4 · difficulty 2/5 · 5 minutes
#
# Write it. Out of the noise of K pairs, `[K, P]`, make that of 2K samples, `[2 K, P]`: row 2k is
# noise k, and row 2k + 1 its opposite. (Why next to each other? Ranks get runs of samples. A pair
# should not be torn apart.)


# %% tags=["exercise"]
def pairs(noise):
    """Noise of 2K samples in antithetic pairs, ``[2 K, P]``."""
    # BEGIN SOLUTION
    # STUB: both = ...
    both = torch.stack([noise, -noise], 1).flatten(0, 1)
    # END SOLUTION
    return both


# %% [markdown] tags=["hint"]
# `torch.stack(..., 1)` gives `[K, 2, P]`. What does `flatten(0, 1)` make of it?

# %% [markdown] tags=["expected"]
# `pairs(torch.tensor([[1.0], [5.0]]))` is `[[1], [-1], [5], [-5]]`.

# %%
check.exercise_4(pairs)

# %% [markdown]
# Does it help? Compare S = 2 independent samples with one pair, on the same batch. We do it for the
# early and for the late posterior; and, to see what makes the difference, for the early means with
# the *same* standard deviation in all weights, from narrow to wide.
#
# **Predict:** for which widths do pairs help most? Will means and scales gain alike?

# %% tags=["aside"]
def with_width(q, width, antithetic):
    """A posterior with the means of q and one standard deviation for all weights."""
    made = spnb.MeanField(model, init_scale=width, antithetic=antithetic)
    with torch.no_grad():
        made.loc.copy_(q.loc)
    return made


def gain(single, paired):
    """Noise of one pair over that of two independent samples, for means and scales."""
    two, pair = (noise_of(q, 2, many, again) for q in (single, paired))
    return [pair[key] / two[key] for key in words]


WIDTHS = [0.005, 0.01, 0.02, 0.05, 0.1, 0.2]
gains = [gain(*(with_width(moments["early"], w, a) for a in (False, True))) for w in WIDTHS]
gains_of = {}
for name, q in moments.items():
    paired = spnb.MeanField(model, antithetic=True)
    paired.load_state_dict(q.state_dict())
    gains_of[name] = q.scale.median().item(), gain(q, paired)

# %% tags=["aside"]
fig, ax = figures.new(7.2, 3.5)
for i, word in enumerate(words.values()):
    look = figures.look(i)
    ax.plot(WIDTHS, [each[i] for each in gains], **look, label=f"gradient of the {word}")
    for width, each in gains_of.values():
        ax.plot(width, each[i], **look, ms=10, mfc="none", mew=1.5)
for name in gains_of:
    ax.axvline(gains_of[name][0], color=figures.GREY, lw=1, ls=":")
    ax.text(gains_of[name][0], 0.02, f" {name}", color=figures.GREY)
ax.axhline(1, color=figures.BLACK, lw=1, ls="-")
ax.set(xlabel="standard deviation of the weights", ylabel="noise: pair / independent",
       ylim=(0, None), xscale="log")
ax.set_xticks(WIDTHS, WIDTHS)
ax.minorticks_off()
ax.legend()
figures.footnote(fig, f"S = 2, {REPEATS} gradients a point, B = {SMALL}; large: the trained "
                 f"posteriors, at their typical width; seed {SEED}")
told = [f"{w:g}: {m:.2f} and {s:.2f}" for w, (m, s) in zip(WIDTHS, gains, strict=True)]
told += [f"{name} posterior: {m:.2f} and {s:.2f}" for name, (_, (m, s)) in gains_of.items()]
figures.show(fig, alt="Noise of one pair over that of two independent samples, for means and "
             f"scales, by the width of the posterior. {'; '.join(told)}.")
for s in (2, 8):
    low, middle, high = bill_of_time.speed_up(f"{s} in pairs", s)
    print(f"S = {s}: in pairs a step is {middle:.2f} times as fast (middle half of the rounds: "
          f"{low:.2f} to {high:.2f})")

# %% [markdown]
# **Explain.** Across a *narrow* posterior the loss is nearly a parabola. The slope at a sample is
# then the slope in the middle, plus a change that is proportional to the noise.
#
# - The **means** collect slopes. The change is odd in the noise, so it cancels within a pair.
# - The **scales** collect slopes *times* noise. Now it is the middle slope that becomes odd, and
#   cancels. The change, noise times noise, is the same for both partners and stays: for that part
#   a pair is worth no more than one sample. The wider the posterior, the larger that part.
#
# Across a *wide* posterior the loss is anything but a parabola, and little cancels at all.
#
# And the price? Pairs took part in the race at the beginning: the lines under the figure compare
# whole steps of the same round. (Where the middle half holds 1, the race was too noisy to tell.)
#
# So pairs are a good habit rather than a cure: always unbiased, cheaper where noise is a large part
# of the bill, and a present for the means as long as the posterior is narrow.
#
# ## What you buy: a better prediction
#
# Prediction has a bill, too, and a simpler one: S forward passes. What do they buy? Let the late
# posterior draw its weights many times, once and for all, on both workers, and look at three kinds
# of images: test images of 0 to 7; the 8s and 9s that it has never seen; test images that lie on
# their side. The last two are **out of distribution**: the network should notice.
#
# With a budget of S you would have had S of those draws. The stored draws hold many disjoint groups
# of S, and each group tells another story. How much the stories differ is the **Monte Carlo
# error** of your score.

# %%
unseen = digits.test_x[~test_seen]
turned = rotate(test[0].view(-1, 8, 8), 90).flatten(1)
images = torch.cat([test[0], unseen, turned])
drawn = pool.run(spnb.predict, moments["late"], images, num_samples=DRAWS, seed=SEED,
                 layout=spnb.Layout(sample=2))[0].softmax(-1)
known, strange, sideways = drawn.split([len(test[0]), len(unseen), len(turned)], 1)
budget = sample_budget(known, test[1], {"8 and 9 (unseen)": strange, "turned by 90°": sideways})
budget

# %% [markdown]
# **Predict, then move, then explain.** Take S = 8, and go through the scores.
#
# 1. **NLL**. Predict: does a larger S make it *better*, or only more certain? Move S from 1 to the
#    right. Explain: one draw says 0.01, another 0.99. What does the logarithm make of each of them,
#    and what of their average?
# 2. **Calibration error**. Predict: does averaging improve it? Look whether it falls or rises with
#    S. Explain: averaging makes predictions less confident. Is that what they lacked?
# 3. **Entropy** and **AUROC** for *8 and 9*. AUROC is how often an 8 or 9 gets the larger entropy
#    than a test image: 0.5 is guessing, 1 is perfect. Predict: from which S on is the network's
#    doubt worth something? Then switch to *turned by 90°*. Can S mend that?
# 4. The right panel. Which errors fall as 1/√S? Which fall faster at first, and which more slowly?
#
# Samples make you certain of what your posterior says. They do not make it say the right thing.

# %% [markdown]
# ### Exercise 5 · difficulty 3/5 · 10 minutes
#
# Compute one of those curves yourself. `probabilities` holds what each draw says, `[K, N, C]`, with
# K a multiple of `size`. Return the NLL of each group of `size` neighbouring draws, `[K / size]`.
# The NLL of a group is that of its *average* prediction, not the average of its NLLs.


# %% tags=["exercise"]
def group_scores(probabilities, targets, size):
    """NLL in nats of each group of ``size`` draws."""
    # BEGIN SOLUTION
    # STUB: scores = ...
    means = probabilities.unflatten(0, (-1, size)).mean(1)  # [groups, N, C]
    chosen = means[:, torch.arange(len(targets)), targets]  # [groups, N]
    scores = -chosen.log().mean(1)
    # END SOLUTION
    return scores


# %% [markdown] tags=["hint"]
# Three steps: `unflatten(0, (-1, size))` makes groups, average the draws of each; pick the
# probability of the true class; take the logarithm, and only then average over the images.

# %% [markdown] tags=["expected"]
# `DRAWS / 8` numbers for `size=8`. Their mean and standard deviation are what the explorable shows
# as NLL for S = 8.

# %%
check.exercise_5(group_scores, known, test[1])

# %% [markdown]
# ## Why S is the axis to cut
#
# Put the bill together. Nearly all the time of a step is S times the same thing, and no sample
# needs to know of another. That is the best that parallel computing can hope for. What is left is
# the price of *sharing* it: what must ranks tell each other, and how does that grow with S?
#
# **Predict:** two ranks, S = 4 and then S = 16. How many bytes does a rank hand over in each step?

# %%
print(f"{'S':>3}{'samples on each rank':>24}{'bytes a step':>16}{'of them a gradient':>20}")
for s in (4, 16):
    layout = spnb.Layout(sample=2)
    run = pool.run(spnb.fit, posterior, (x, y), layout=layout, num_samples=s, batch_size=256)[0]
    shares = [len(layout.tile(rank, s, 256).samples) for rank in range(2)]
    sent = run.history.bytes_per_step
    print(f"{s:>3}{str(shares):>24}{sent:16,.0f}{4 * 2 * P / sent:20.1%}")
pool.close()

# %% [markdown]
# **Explain.** One gradient of 2P numbers, already summed over a rank's samples, whatever S is. So:
#
# - **Time.** The slope of the bill is shared out; the offset and the message stay. The more samples
#   there are, the less these matter.
# - **Traffic.** It does not grow with S.
# - **Memory.** One at a time, a rank needs no more than before. All at once, it holds only its
#   share.
# - **Gradient noise.** Twice the ranks, twice the samples in the same time.
#
# Be fair to the other axis. A batch can be cut, too, and its traffic does not grow with S either.
# But then every rank has to draw *all* S samples, and its pieces of the batch become small. On the
# other hand a batch can be cut when S = 1. And early in training, as you saw, samples are not what
# the gradient lacks. Notebooks 03 and 04 take this up.
#
# ## You can now
#
# - read the bill of a training step: what each step pays once, and what each sample adds
# - say when more samples need more memory, and when they do not
# - tell how much of a gradient's noise more samples can take away, and how much they cannot
# - use antithetic pairs of samples, and know when they help
# - choose the number of samples of a prediction by its Monte Carlo error
# - say why the samples are the axis to cut
#
# **Next:** notebook 03 cuts it: sampling parallelism from scratch.
#
# ## References
#
# - D. P. Kingma, M. Welling: *Auto-Encoding Variational Bayes*,
#   [arXiv 1312.6114](https://arxiv.org/abs/1312.6114), 2013: gradients through samples.
# - C. Blundell et al.: *Weight Uncertainty in Neural Networks*,
#   [arXiv 1505.05424](https://arxiv.org/abs/1505.05424), 2015: mean field for networks.
# - D. P. Kroese, T. Taimre, Z. I. Botev: *Handbook of Monte Carlo Methods*, Wiley, 2011, section
#   9.2: antithetic variables.
# - C. Guo et al.: *On Calibration of Modern Neural Networks*,
#   [arXiv 1706.04599](https://arxiv.org/abs/1706.04599), 2017: the expected calibration error.
# - Asena Karolin Özdemir, Lars H. Heyen, Arvid Weyrauch, Achim Streit, Markus Götz, Charlotte
#   Debus: *Sampling Parallelism for Fast and Efficient Bayesian Learning*,
#   [arXiv 2604.04736](https://arxiv.org/abs/2604.04736), 2026.
# - E. Alpaydin, C. Kaynak: *Optical Recognition of Handwritten Digits*, UCI Machine Learning
#   Repository, 1998 (the data).
