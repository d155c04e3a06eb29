# %% [markdown]
# # When averaging is not exact
#
# Every GPU computes a gradient from its own samples, and the gradients are averaged. So far that
# was exact, because the loss was a mean over the samples. But a Bayesian net is *judged* by the
# average of its predictions, and you may want to train on that score. Then there is a logarithm
# around the average. And a mean of logarithms is not the logarithm of a mean. In this notebook you
# see which losses are concerned, which way the error goes and how large it is, and what makes it
# go away. In the end you find out whether it matters for a trained net. The answer may surprise
# you.
#
# **You will be able to**
#
# - tell which objectives are linear in the samples, and which are not
# - say which way plain averaging errs, and estimate by how much
# - make any objective exact: gather the predictions, and keep your slice of the gradient
# - predict what gathering costs, in bytes and in memory
# - recognise two traps: dividing twice, and averaging scores
# - say what plain averaging trains instead, and judge whether that matters to you
#
# It takes about 70 minutes to work through. Run from top to bottom without stopping, the notebook
# needs about a minute at the `ci` scale on two cores and less than five minutes at the `laptop`
# scale (set `SPNB_SCALE` before JupyterLab starts to choose).

# %%
import copy
import os
from functools import partial

import numpy as np
import torch
import torch.distributed as dist
from scipy import stats
from torch.nn import functional as F
from torch.profiler import profile

import spnb
from spnb.maths.networks import mlp
from spnb.teach import datasets, figures, scale
from spnb.teach.checks import nb06 as check
from spnb.teach.explore.bias import bias_explorer, second_order
from spnb.teach.passport import provenance

torch.set_num_threads(1)  # small nets gain nothing from more, and the workers want the cores
SEED = 0
STEPS = scale.pick(ci=16, laptop=64, node=256)  # whose gradients are compared
DRAWS = scale.pick(ci=128, laptop=256, node=1024)  # stored for the explorable
RUNS, EPOCHS = scale.pick(ci=(4, 4), laptop=(8, 16), node=(20, 20))  # of the last section
print(f"scale: {scale.name()}, {STEPS} gradients, {DRAWS} draws, {RUNS} runs of {EPOCHS} epochs")
print(provenance(SEED))

# %% [markdown]
# ## Two kinds of losses
#
# Give each of two ranks half of the samples. Each forms the loss of its own half, and the two
# losses are averaged. Is that the loss of all samples?
#
# You can simply put the question to an objective. Remember what an objective is in `spnb`: a
# function of the predictions of *all* samples, `[S, B, ...]`, and the targets. So plain averaging
# is an objective, too. It splits the samples into W groups, asks another objective about each, and
# takes the mean. One process is enough to see what many ranks would do.
#
# Here are five objectives, with made-up predictions of real numbers.
#
# **Predict:** which of the five do not mind being split?


# %%
class Grouped(spnb.Objective):
    """What W ranks do under plain averaging, in one process: the mean of W groups' losses."""

    def __init__(self, objective, groups):
        super().__init__(temperature=objective.temperature)
        self.objective, self.groups = objective, groups

    def losses(self, predictions, targets, likelihood):
        parts = predictions.chunk(self.groups)  # along the samples
        return torch.stack([self.objective.losses(p, targets, likelihood) for p in parts]).mean(0)


torch.manual_seed(SEED)
targets = torch.randn(100, 1, dtype=torch.float64)
guesses = targets + 0.5 * torch.randn(8, 100, 1, dtype=torch.float64)  # S = 8 samples
seen = guesses, targets, spnb.likelihoods.Normal(0.5)
print(f"{'objective':18}{'all at once':>12}{'two halves':>12}{'difference':>12}   linear?")
for objective in (spnb.ELBO(), spnb.AlphaDivergence(0.5), spnb.PredictiveNLL(), spnb.EnergyScore(),
                  spnb.GaussianMoments()):
    whole, halves = (Grouped(objective, w).losses(*seen).mean().item() for w in (1, 2))
    print(f"{type(objective).__name__:18}{whole:12.5f}{halves:12.5f}{halves - whole:12.1e}   "
          f"{objective.linear_in_samples}")

# %% [markdown]
# **Explain.** Only the ELBO does not mind, but for rounding. It is a mean of one term a sample, and
# a mean of the means of equal parts is the mean. The others need their samples *together*:
#
# | objective | what it needs them together for |
# |---|---|
# | `PredictiveNLL` | -log of their **mean** probability |
# | `AlphaDivergence` | the same, with a power of the probability |
# | `EnergyScore` | the distance of each sample **from each other one** |
# | `GaussianMoments` | their mean and their **variance** |
#
# (Look at the signs, too. Not every objective errs towards the same side.)
#
# `spnb` knows by the flag `linear_in_samples`. A function of your own, `spnb.Objective(function)`,
# counts as not linear unless you say otherwise. That is the safe side.
#
# ## The picture
#
# Take the simplest case. Two ranks, one sample each. There is an image for which sample 1 gives the
# right class a probability of 0.1, and sample 2 gives it 0.9.
#
# **Predict:** is the mean of the two losses larger than the loss of the mean, or smaller?

# %%
p = torch.tensor([0.1, 0.9])
mean_of_losses, loss_of_mean = -p.log().mean().item(), -p.mean().log().item()

fig, ax = figures.new(7.2, 3.6)
line = torch.linspace(0.06, 1, 200)
ax.plot(line, -line.log(), **figures.look(0, marker=False), label="loss of a probability, -log p")
ax.plot(p, -p.log(), **figures.look(1), label="the two samples, and what lies between")
for value, index in ((mean_of_losses, 1), (loss_of_mean, 0)):
    ax.plot(0.5, value, **figures.look(index) | {"ms": 9})
ax.text(0.52, mean_of_losses + 0.07, f"mean of the losses: {mean_of_losses:.3f}")
ax.text(0.48, loss_of_mean - 0.05, f"loss of the mean: {loss_of_mean:.3f}", ha="right", va="top")
ax.annotate("", (0.5, mean_of_losses - 0.05), (0.5, loss_of_mean + 0.05),
            arrowprops={"arrowstyle": "<->", "lw": 1.2, "shrinkA": 0, "shrinkB": 0})
ax.set(xlabel="probability p of the right class", ylabel="loss in nats", ylim=(0, 2.9))
ax.legend()
figures.show(fig, alt=f"The curve -log p sags. The straight line between its points at 0.1 and 0.9 "
             f"has its middle at {mean_of_losses:.3f}; the curve below it is at "
             f"{loss_of_mean:.3f}.")
print(f"plain averaging reports {mean_of_losses - loss_of_mean:.3f} nats too much")

# %% [markdown]
# **Explain.** The curve sags below every straight line between two of its points. So the mean of
# the losses lies *above* the loss of the mean, for any two probabilities that differ. That is
# **Jensen's inequality**. Plain averaging of -log always errs towards the larger loss. And it errs
# most where the ranks disagree most.
#
# ### Exercise 1 · difficulty 2/5 · 6 minutes
#
# Compute the error yourself. `p` holds the probabilities `[S]` that the samples give to the right
# class of one image. `groups` ranks have equal shares of them, neighbours together. How much larger
# is the averaged loss than the exact one?


# %% tags=["exercise"]
def averaging_bias(p, groups):
    """Mean of the groups' -log of their mean probability, minus -log of the mean of all."""
    # BEGIN SOLUTION
    # STUB: bias = ...
    averaged = torch.stack([-part.mean().log() for part in p.chunk(groups)]).mean()
    bias = averaged + p.mean().log()
    # END SOLUTION
    return bias


# %% [markdown] tags=["hint"]
# `p.chunk(groups)` gives the shares. Of each share take the mean first, then the logarithm. Of the
# results take the mean again.

# %% [markdown] tags=["expected"]
# `averaging_bias(torch.tensor([0.1, 0.9]), 2)` is the number under the figure, 0.511. With one
# group it is zero.

# %%
check.exercise_1(averaging_bias)

# %% [markdown]
# ## Which way, and how much
#
# A group averages M = S / W samples. What it finds is the true mean m, plus a small error δ:
#
# $$ -\log(m + \delta) = -\log m - \frac{\delta}{m} + \frac{\delta^2}{2 m^2} - \dots $$
#
# On average δ is zero, so the second term drops out. But δ² is not zero. On average it is the
# variance of p, divided by M. So a loss of M samples is too large by $v / 2M$, where $v =
# \mathrm{Var}(p) / m^2$ is the *relative* variance. For all S samples together it is $v / 2S$. The
# difference is the bias of plain averaging:
#
# $$ \text{bias} \; \approx \; \frac{v}{2} \Big( \frac{W}{S} - \frac{1}{S} \Big)
# \; = \; \frac{W - 1}{2 S} \, v. $$
#
# Test it. Here p follows a beta distribution, whose mean and variance we know.
#
# **Predict:** twice the samples on the same ranks: what becomes of the bias? And twice the samples
# on twice the ranks?

# %%
SETS, SIZES = 20_000, (8, 16, 32, 64)
beta = torch.distributions.Beta(4.0, 2.0)
relative = (beta.variance / beta.mean**2).item()
torch.manual_seed(SEED)


def mean_and_error(values):
    """Mean, and twice its standard error."""
    return values.mean().item(), 2 * values.std().item() / len(values) ** 0.5


found = {}
for w in (2, 4, 8):
    for s in SIZES:
        p = beta.sample((SETS, w, s // w)).mean(2)  # what each group averages
        found[w, s] = mean_and_error(p.mean(1).log() - p.log().mean(1))
print("And what does a group of ranks report, against one rank that works alone?")
few, averaged, many = beta.sample((SETS, 4)), beta.sample((SETS, 8, 4)), beta.sample((SETS, 32))
for name, loss in {"4 samples, exact": -few.mean(1).log(),
                   "32 samples on 8 ranks, averaged": -averaged.mean(2).log().mean(1),
                   "32 samples, exact": -many.mean(1).log()}.items():
    print("  {:33}{:.4f} ± {:.4f} nats".format(name, *mean_and_error(loss)),
          f"and scatters by {loss.std():.3f}")

# %%
fig, ax = figures.new(7.2, 3.6)
told = []
for index, w in enumerate((2, 4, 8)):
    formula = [(w - 1) / (2 * s) * relative for s in SIZES]
    bias, error = zip(*(found[w, s] for s in SIZES), strict=True)
    look = figures.look(index)
    ax.errorbar(SIZES, bias, error, **look | {"linestyle": "none"}, capsize=4, label=f"W = {w}")
    ax.plot(SIZES, formula, color=look["color"], linestyle=look["linestyle"], lw=1.2)
    told += [f"W = {w}: {bias[0]:.5f} nats at S = 8 (± {error[0]:.5f}, formula {formula[0]:.5f}), "
             f"{bias[-1]:.5f} at S = 64 (± {error[-1]:.5f}, formula {formula[-1]:.5f})."]
ax.set(xscale="log", yscale="log", xlabel="samples S", ylabel="bias in nats")
ax.set_xticks(SIZES, SIZES)
ax.minorticks_off()
ax.legend(title="points: simulated\nlines: formula")
figures.footnote(fig, f"p from a beta distribution, v = {relative:.3f}; {SETS:,} sets a point; "
                 f"bars: two standard errors; seed {SEED}")
figures.show(fig, alt="Bias against S, falling as 1/S, for three W. " + " ".join(told))
print(*told, sep="\n")

# %% [markdown]
# **Explain.** On the same ranks, twice the samples halve the bias. On twice the ranks they do not:
# then it even rises a little, towards $v / 2M$. What counts is M, the samples *of one rank*. The
# formula is only the first term of a series, good as soon as a group holds a handful of samples.
# With one sample a group (W = 8 at S = 8) it says too little.
#
# And the lines above the figure? Eight ranks with four samples each have paid for 32 samples. On
# average they report the loss of **four**. The other ranks made it less noisy, not less biased.
#
# ## Real numbers
#
# Enough of made-up probabilities. Train a small net on the digits, with the ELBO, and take its
# posterior.

# %%
S, B = 16, 128
digits = datasets.digits()
print(digits, digits.sentence, sep="\n")
x, y = digits.train_x.double(), digits.train_y
test = digits.test_x.double(), digits.test_y
torch.manual_seed(SEED)
model = spnb.BayesianModel(mlp((64, 16, 10)).double())
start = spnb.MeanField(model, init_scale=0.05)
posterior = spnb.fit(start, (x, y), num_samples=4, batch_size=B, epochs=15, learning_rate=0.02,
                     schedule="cosine", seed=SEED).posterior
P, batch = len(posterior.loc), (x[:B], y[:B])
print(f"P = {P:,} weights;", {k: round(v, 3) for k, v in spnb.score(posterior, test).items()})
pool = spnb.WorkerPool(2)  # the two workers start while you read on


def flat(named):
    """Gradients of means and scales as one vector, ``[2 P]``."""
    return torch.cat([named["loc"], named["rho"]])


def gradients(objective):
    """The gradient in each of STEPS steps, ``[STEPS, 2 P]``: same batch, new noise."""
    return torch.stack([flat(spnb.gradients(posterior, batch, objective=objective, num_samples=S,
                                            step=t, samples_in_flight=S)) for t in range(STEPS)])

# %% [markdown]
# Now split the samples into W groups. There are two questions. How far off is the *loss*? And,
# since training only ever sees its gradient: how far off is the **gradient**, in length and in
# direction? Beside it stands what S random samples do to a gradient anyway: its **noise** from step
# to step.
#
# **Predict:** S = 16. At which W does averaging do as much harm to a step as the noise does?

# %%
nll = spnb.PredictiveNLL(temperature=0.0)  # the data term alone: the KL has no samples in it
sets = spnb.predict(posterior, batch[0], num_samples=64 * S, seed=SEED).split(S)
exact = gradients(nll)
size = exact.square().sum(1).mean().sqrt()
noise = exact.var(0).sum().sqrt() / size
print(f"S = {S}. The noise of the gradient is {noise:.0%} of its length.\n")
print(f"{'':5}{'the loss is':>12}{'too large by':>20}{'formula':>9}   the gradient is")
for w in (1, 2, 4, 8, 16):
    whole, split = (torch.stack([Grouped(nll, g).losses(part, batch[1], model.likelihood).mean()
                                 for part in sets]) for g in (1, w))
    guess = second_order(nll, torch.cat(sets), batch[1], model.likelihood, S, w)
    averaged = gradients(Grouped(nll, w))
    off = (averaged - exact).square().sum(1).mean().sqrt() / size
    cosine = F.cosine_similarity(averaged, exact).mean()
    longer = averaged.square().sum(1).mean().sqrt() / size
    bias, error = mean_and_error(split - whole)
    print(f"W = {w:<3}{split.mean():10.4f}{bias:12.4f} ± {error:.4f}{guess:9.4f}"
          f"   off by {off:5.1%}, cosine {cosine:.4f}, length {longer:.2f}")
elbo = gradients(spnb.ELBO(temperature=0.0))
print(f"\nW = {S} against the ELBO: largest difference {(averaged - elbo).abs().max():.0e}")
mean = exact.mean(0)
still = (averaged.mean(0) - mean).norm() / mean.norm()
print(f"In the mean of {STEPS} steps, W = {S} is off by {still:.0%} of the mean gradient; of the "
      f"noise, {noise * size / STEPS**0.5 / mean.norm():.0%} are left.")

# %% [markdown]
# **Explain.** The more groups, the larger the loss, and the *longer* the gradient. A small group
# wants every one of its samples to be right, where the exact loss is content if all of them are
# right on average. The direction suffers less. And at the end of the road, with **one sample a
# rank, plain averaging of the predictive NLL is the ELBO**.
#
# In a single step the error only gets near the noise where W reaches S. But the two are not alike.
# Noise changes its direction from step to step, so training averages most of it away. The bias
# points the same way, step after step: compare the two numbers in the last line.
#
# ## For real
#
# Is that what live ranks do? `spnb.PlainAveraging(objective)` is the paper's way, under its own
# name. Run both ways on the pool and hold them against one process. In double precision an honest
# rounding error and a wrong gradient cannot be mixed up.
#
# **Predict:** in which of these rows is *averaged* exact? Mind the last two.

# %%
print(f"{'':21}{'gathered':>10}{'averaged':>10}{'averaged against':>19}")
print(f"{'relative difference':21}{'- serial':>10}{'- serial':>10}{'two groups, serial':>19}")
for objective, samples in ((spnb.ELBO(), 16), (spnb.PredictiveNLL(), 16), (spnb.EnergyScore(), 16),
                           (spnb.PredictiveNLL(), 7), (spnb.ELBO(), 7)):
    serial, groups = (
        flat(spnb.gradients(posterior, batch, objective=o, num_samples=samples))
        for o in (objective, Grouped(objective, 2)))
    gathered, averaged = (
        flat(pool.run(spnb.gradients, posterior, batch, objective=o, num_samples=samples,
                      layout=spnb.Layout(sample=2))[0])
        for o in (objective, spnb.PlainAveraging(objective)))
    gaps = [((a - b).norm() / b.norm()).item()
            for a, b in ((gathered, serial), (averaged, serial), (averaged, groups))]
    print(f"{type(objective).__name__:14}S = {samples:<3}{gaps[0]:10.0e}{gaps[1]:10.0e}"
          f"{gaps[2]:19.0e}")

# %% [markdown]
# **Explain.** *Gathered* agrees with one process in every row. *Averaged* does so in the first row
# alone. It is off for everything that is not linear. And even the ELBO is off when the samples do
# not divide: 7 samples on 2 ranks are 4 and 3, and an average of ranks counts each of the three for
# more than each of the four. The last column says that our little class `Grouped` does just what
# the live ranks do.
#
# ## Explore
#
# The posterior's draws on 64 test images, stored once. W groups share each set of S. Left: the loss
# of all samples, the averaged one, and the formula. Right: how far the gradient is off, and the
# noise that it has anyway. The last slider makes the posterior wider or narrower than it is.
#
# **Predict, then move, then explain.**
#
# 1. Raise W from 1 to 8. On which side is the averaged loss? Now take **α = -0.5**. Predict: which
#    side? (Its loss is *plus* 2 times the log of a mean. How does the picture above look then?)
# 2. Predict: what does twice the **spread** do to the bias? And half of it?
# 3. The **energy score** compares the samples in pairs. Is its loss biased at W = 4? Is its
#    gradient exact? And what happens when W reaches S? What does a group of one sample know about
#    pairs?
# 4. Back to α = 1. Let S and W grow *together*, so that S / W stays. Which of the two curves on the
#    right goes down, and which stays? Which of them wins on many GPUs?

# %%
pictures = test[0][:64].float(), test[1][:64]
explorer = bias_explorer(copy.deepcopy(posterior).float(), pictures, draws=DRAWS, seed=SEED)
explorer

# %% [markdown]
# **Explain.** For α below zero the curve bends the other way, and the error changes sides. The bias
# goes with the *square* of the spread as long as that is small, and faster where it is wide. The
# energy score is a mean over pairs. The pairs that are left within the groups have the right mean,
# so its loss has no bias; but the others are wasted, and the gradient is not that of all samples. A
# group of one has no pair at all: then the term that rewards spread is gone. And more ranks lower
# the noise, but not the bias.
#
# ## What makes it exact
#
# Write $f_s$ for what sample s predicts. The chain rule has two factors:
#
# $$ \frac{dL}{d\theta} = \sum_{s} \; \underbrace{\frac{\partial L}{\partial f_s}}_{\text{needs all
# predictions}} \; \underbrace{\frac{\partial f_s}{\partial \theta}}_{\text{needs sample } s} $$
#
# The second factor is the expensive one: a backward pass through the net. The rank that owns sample
# s can do it alone. Only the first factor needs the others. And what it needs of them is little:
# their predictions, bare numbers without any graph. So:
#
# 1. **Gather** the predictions of all samples. Now every rank knows them.
# 2. Every rank forms **the same loss**, and its gradient at all predictions.
# 3. Each keeps **its own slice** of it, and goes on backwards from there. Nobody is asked.
# 4. The gradients are **summed**, as ever.
#
# **Predict:** how many messages does the backward pass need?


# %%
def own_part(posterior, objective, x, y, num_samples, step=0):
    """The loss of all samples, and its gradient through this rank's own, ``[2 P]``."""
    rank, world_size = dist.get_rank(), dist.get_world_size()
    each = num_samples // world_size  # to keep it short: W divides S here
    mine = range(rank * each, (rank + 1) * each)
    weights = posterior.draw(mine, spnb.Key(SEED).fold("weights", step))
    own = posterior.model.predict(weights, posterior.point, x)  # [S / W, B, C], with a graph

    parts = [torch.empty_like(own) for _ in range(world_size)]
    dist.all_gather(parts, own.detach())  # 1. what do the others predict?
    everyone = torch.cat(parts).requires_grad_()
    loss = objective.losses(everyone, y, posterior.model.likelihood).mean()  # 2. the same for all
    (at,) = torch.autograd.grad(loss, everyone)
    learned = [posterior.loc, posterior.rho]
    found = torch.autograd.grad(own, learned, at[mine.start : mine.stop])  # 3. mine, and on
    return loss.item(), torch.cat(found)


(loss, part), (other_loss, other) = pool.run(own_part, posterior, nll, *batch, S)
ours = part + other  # 4. the sum; in a training step it is an all-reduce
theirs = flat(spnb.gradients(posterior, batch, objective=nll, num_samples=S, seed=SEED))
print(f"loss on rank 0: {loss:.12f}, on rank 1: {other_loss:.12f}")
print(f"relative difference from spnb in one process: {(ours - theirs).norm() / theirs.norm():.0e}")

# %% [markdown]
# **Explain.** None at all. The gather is the only message besides the sum that every step has. Both
# ranks even report the right loss. (Autograd does not know that step 1 happened: to it the gathered
# numbers fell from the sky. That is why each rank has to take its slice by hand.) And none of the
# lines knows which objective it is.
#
# ### Exercise 2 · difficulty 3/5 · 8 minutes
#
# The same thing in another manner: let autograd do the slicing. Put your live predictions, `own`,
# into their place among the gathered ones. (What `everyone` holds there are the same numbers, but
# without a graph.) Then form the predictive NLL of all samples: -log of the mean probability of the
# right class, mean over the rows.


# %% tags=["exercise"]
def loss_of_all(own, everyone, start, y):
    """Loss of all samples, whose gradient reaches only this rank's own.

    own: logits [C, B, K] of samples start, start + 1, ..., with a graph; everyone: [S, B, K].
    """
    # BEGIN SOLUTION
    # STUB: loss = ...
    stop = start + len(own)
    logits = torch.cat([everyone[:start], own, everyone[stop:]])
    loss = F.nll_loss(logits.softmax(-1).mean(0).log(), y)
    # END SOLUTION
    return loss


# %% [markdown] tags=["hint"]
# `torch.cat` of three pieces: those before you, you, those after you. Then `softmax`, the mean over
# the samples, and `F.nll_loss(means.log(), y)`.

# %% [markdown] tags=["expected"]
# For each of three ranks, with 3, 2 and 2 of 7 samples: the same loss, and a gradient at `own` that
# is its slice of the whole one.

# %%
check.exercise_2(loss_of_all)

# %% [markdown]
# ## What gathering costs: bytes
#
# **Predict:** which of these lines send predictions? What if the samples are not spread at all, and
# the *batch* is (1 × 2)?

# %%
def bytes_sent(posterior, data, cases):
    """Bytes a step that this rank hands over, for objectives and layouts."""
    return [spnb.fit(posterior, data, objective=objective, layout=layout, num_samples=S,
                     batch_size=B).history.bytes_per_step for objective, layout in cases]


objectives = spnb.ELBO(), spnb.PlainAveraging(spnb.PredictiveNLL()), spnb.PredictiveNLL()
cases = [(o, layout) for o in objectives for layout in (spnb.Layout(sample=2), spnb.Layout(data=2))]
counted = pool.run(bytes_sent, posterior, (x[: 2 * B], y[: 2 * B]), cases)[0]
gradient = 8 * 2 * P
for (objective, layout), sent in zip(cases, counted, strict=True):
    name = repr(objective).replace("(temperature=1)", "")
    print(f"{name:31}{layout.sample} × {layout.data}:{sent:9,.0f} bytes a step, of them "
          f"{gradient:,} gradient, {sent - gradient:6,.0f} other")
print(f"predictions of one rank: S/2 · B · 10 classes · 8 bytes = {8 * S // 2 * B * 10:,}")

share = 16 // 8  # samples of a rank
print("\nby arithmetic, single precision, S = 16 on 8 ranks:")
for name, weights, numbers in (("this perceptron, 128 rows, 10 classes", P, 128 * 10),
                               ("6 million weights, 128 rows, 10 classes", 6e6, 128 * 10),
                               ("300 million weights, 256 rows, 1,000 classes", 3e8, 256 * 1000),
                               ("200 million weights, 16 fields of 100,000", 2e8, 16 * 100_000)):
    print(f"  {name:46}{4 * 2 * weights:15,.0f} gradient{4 * share * numbers:12,.0f} predictions")

# %% [markdown]
# **Explain.** Only the exact objective with its samples spread. Under `Layout(data=2)` each rank
# has *all* samples of its rows, so there is nothing to ask. (A handful of other bytes are there in
# any case: the losses, and one flag a rank.)
#
# A rank hands over its predictions: $S/W \cdot B \cdot C$ numbers, besides the 2P of the gradient.
# For a tiny net that is the larger part. For a large one it is next to nothing. The gather is still
# one more message to wait for, in the middle of the step. How long that takes depends on your
# machine; `spnb.plan` of notebook 05 estimates it.
#
# ### Exercise 3 · difficulty 2/5 · 6 minutes
#
# Predict the bytes that a rank hands over in a step with an exact, non-linear objective, for any
# number of ranks along `sample`. Where the samples do not divide, everybody sends as much as the
# rank that has most of them. (Leave the few other bytes aside: the checker allows 1 %.)


# %% tags=["exercise"]
def handed_over(num_weights, num_samples, batch_size, classes, ranks, itemsize):
    """Bytes a step and rank: gradient and predictions, for a mean-field posterior."""
    # BEGIN SOLUTION
    # STUB: sent = ...
    largest_share = -(-num_samples // ranks)  # rounded up
    sent = itemsize * (2 * num_weights + largest_share * batch_size * classes)
    # END SOLUTION
    return sent


# %% [markdown] tags=["hint"]
# Two parts. How many numbers does a mean-field posterior learn? How many samples has the rank with
# most of them, and how many numbers does one sample predict?

# %% [markdown] tags=["expected"]
# The checker runs `spnb.fit` on both workers, with 8 samples and with 5, and compares with what it
# counted.

# %%
check.exercise_3(handed_over, pool)

# %% [markdown]
# ## What gathering costs: memory
#
# Notebook 02 said: evaluate one sample after the other, and memory does not grow with S. Here that
# fails. The backward pass of sample 1 cannot begin before sample S has made its prediction. So all
# S graphs have to be kept.
#
# Or you evaluate **twice**. A first pass learns the predictions and forgets all else. Then the
# gradient at the predictions is known, and a second pass goes sample by sample, forwards and
# backwards. In `spnb` that is `recompute=True`.
#
# **Predict:** does it change the gradient? By how much?

# %%
os.environ["KINETO_LOG_LEVEL"] = "9"  # the profiler shall keep its notes to itself


def tensors_peak(task):
    """The most memory that the tensors of a task held at one moment, in MB."""
    with profile(profile_memory=True) as seen:
        task()
    events = sorted(seen.profiler.kineto_results.events(), key=lambda event: event.start_ns())
    return np.cumsum([e.nbytes() for e in events if e.name() == "[memory]"]).max() / 1e6


def step_with(samples, again):
    return flat(spnb.gradients(posterior, (x[:512], y[:512]), objective=nll, num_samples=samples,
                               recompute=again))


for samples in (4, 16, 64):
    kept, twice = (step_with(samples, again) for again in (False, True))
    peaks = [tensors_peak(partial(step_with, samples, again)) for again in (False, True)]
    print(f"S = {samples:<3}peak of the tensors: all graphs kept {peaks[0]:5.1f} MB, evaluated "
          f"twice {peaks[1]:4.1f} MB; gradients off by {(kept - twice).norm() / kept.norm():.0e}")
print(f"predictions of S = 64: {64 * 512 * 10 * 8 / 1e6:.1f} MB")

# %% [markdown]
# **Explain.** Not at all, but for rounding. The first way needs memory for every sample's graph.
# The second needs it for one, and for the predictions of all, which a rank has to hold in any case.
# The price is one more forward pass for each sample. What is sent stays the same.
#
# ## Trap 1: dividing twice
#
# There are two ways to put the ranks' gradients together, and both are right:
#
# - **sum**: each rank keeps its slice and adds KL / W; the gradients are summed. That is `spnb`.
# - **average**: PyTorch's DDP *averages* over W ranks. Then the slice must be multiplied by W, and
#   each rank adds the whole KL.
#
# The trap is to take one half of each. It has been found in published code. Let us put in the
# factors by hand, on live ranks, and read from the gradient what it is made of: so many parts of
# the data term, so many parts of the KL.
#
# **Predict** the weights of the two terms in the last two rows.


# %%
def combined(posterior, x, y, num_samples, factor, kl_factor, average):
    """The loss that a rank reports, and the gradient that all of them step along."""
    loss, gradient = own_part(posterior, nll, x, y, num_samples)
    kl = posterior.divergence(posterior.prepare()) / len(x)  # the batch counts as all the data
    of_kl = torch.cat(torch.autograd.grad(kl, [posterior.loc, posterior.rho]))
    gradient = factor * gradient + kl_factor * of_kl
    dist.all_reduce(gradient)
    return loss + kl.item(), gradient / dist.get_world_size() if average else gradient


both = flat(spnb.gradients(posterior, batch, objective=spnb.PredictiveNLL(), num_samples=S))
terms = torch.stack([theirs, both - theirs], 1)  # gradients of the data term and of the KL / N
W = pool.size
print(f"{'':44}{'reported loss':>14}{'data term':>11}{'KL':>6}")
for name, way in {
    "sum:      slice,     KL / W": (1, 1 / W, False),
    "average:  W · slice, KL": (W, 1, True),
    "mixed up: slice,     KL, then averaged": (1, 1, True),
    "mixed up: W · slice, KL / W, then summed": (W, 1 / W, False),
}.items():
    reported, gradient = pool.run(combined, posterior, *batch, S, *way)[0]
    parts = torch.linalg.lstsq(terms, gradient[:, None]).solution.flatten()
    print(f"{name:44}{reported:14.6f}{parts[0]:11.3f}{parts[1]:6.3f}")

# %% [markdown]
# **Explain.** All four report the same loss, and it is the right one. Watching the loss will never
# tell you. But in the third row the data weigh 1/W of what they should, beside a KL of weight one.
# It is as if you had set the temperature to W: on eight GPUs the prior would pull eight times too
# hard. The gradient test of notebook 03 tells you at once.
#
# ### Exercise 4 · difficulty 3/5 · 6 minutes
#
# Repair it. On every rank there is `data_term`, the exact loss of all samples, whose gradient
# reaches only the rank's *own* samples (your exercise 2), and `kl`, which is whole on every rank.
# DDP will average the gradients of what you return over `world_size` ranks.


# %% tags=["exercise"]
def rank_loss(data_term, kl, world_size):
    """What a rank hands to DDP."""
    # BEGIN SOLUTION
    # STUB: loss = ...
    loss = world_size * data_term + kl
    # END SOLUTION
    return loss


# %% [markdown] tags=["hint"]
# The sum of W gradients, divided by W. Which of the two terms is in W pieces, so that the pieces
# must add up? Which is W times the same?

# %% [markdown] tags=["expected"]
# After the averaging both terms weigh 1, on 2 ranks and on 4.

# %%
check.exercise_4(rank_loss)

# %% [markdown]
# ## Trap 2: averaging scores
#
# The same mistake waits after training. Each rank scores its own samples on the test images, and
# somebody averages the scores. But the model is judged by its *average prediction*, over all
# samples of all ranks.
#
# **Predict:** is the averaged score too good, or too bad? For the accuracy, too, which has no
# logarithm in it?

# %%
draws = spnb.predict(posterior, test[0], num_samples=32 * 8, seed=SEED).softmax(-1)
for w in (1, 2, 4, 8):
    means = draws.unflatten(0, (-1, w, 8 // w)).mean(2)  # [sets, W, N, C]
    right = (means.argmax(-1) == test[1]).double().mean((1, 2))
    losses = -means[..., torch.arange(len(test[1])), test[1]].log().mean((1, 2))
    print(f"8 samples on {w} ranks, scores averaged: accuracy",
          "{:.4f} ± {:.4f}, NLL".format(*mean_and_error(right)),
          "{:.4f} ± {:.4f}".format(*mean_and_error(losses)))
serial = spnb.score(posterior, test, num_samples=8)
live = pool.run(spnb.score, posterior, test, num_samples=8, layout=spnb.Layout(sample=2))[0]
print(f"\nspnb.score, 8 samples, NLL: {serial['nll']:.12f} in one process")
print(f"{'':29}{live['nll']:.12f} on two ranks")

# %% [markdown]
# **Explain.** Too bad, in both. Averaging predictions repairs mistakes that single samples make.
# Who averages scores throws that away, and the more ranks, the more of it: the very same net looks
# worse on more GPUs. `spnb.score` gathers the predictions first.
#
# ## Does it matter in training?
#
# So far we looked at single gradients. Now train with them: the exact predictive NLL, and plain
# averaging of it over 8 and over 16 ranks, S = 16 samples a step. A run and its rivals start from
# the same weights, with the same noise and the same order of the data: only the objective differs.
# We do that at two temperatures T (the weight of the KL), since the posterior is wide at T = 1 and
# narrow at T = 0.1. Each worker takes half of the runs.
#
# **Predict:** the test images are scored by the predictive NLL. The exact way trains on that very
# score. Who will win? By how much?


# %%
def train_some(jobs, train, test, epochs):
    """Scores by job; every rank takes its share of the jobs."""
    found, log_score = {}, spnb.scores.predictive_nll
    for temperature, groups, run in jobs[dist.get_rank() :: dist.get_world_size()]:
        torch.manual_seed(run)
        start = spnb.MeanField(spnb.BayesianModel(mlp((64, 16, 10))), init_scale=0.05)
        objective = Grouped(spnb.PredictiveNLL(temperature), groups)
        q = spnb.fit(start, train, objective=objective, num_samples=16, batch_size=128,
                     epochs=epochs, learning_rate=0.05, schedule="cosine", seed=run,
                     samples_in_flight=16).posterior
        likelihood, kl = q.model.likelihood, q.divergence(q.prepare()).item() / len(train[1])
        seen, draws = (spnb.predict(q, of[0], num_samples=64, seed=run, samples_in_flight=16)
                       for of in (train, test))
        means = draws.softmax(-1).mean(0)
        found[temperature, groups, run] = {
            "loss asked for": log_score(seen, train[1], likelihood) + temperature * kl,
            "test NLL": log_score(draws, test[1], likelihood),
            "accuracy": (means.argmax(-1) == test[1]).double().mean().item(),
            "confidence": means.amax(-1).mean().item(),
            "spread": spnb.scores.mutual_information(draws, likelihood).mean().item(),
        }
    return found


# %% tags=["aside"]
TEMPERATURES, WAYS = (1.0, 0.1), {1: "exact", 8: "W = 8", 16: "W = 16"}
jobs = [(t, w, run) for run in range(RUNS) for t in TEMPERATURES for w in WAYS]
data = (digits.train_x, digits.train_y), (digits.test_x, digits.test_y)
scores = {}
for part in pool.run(train_some, jobs, *data, EPOCHS):
    scores |= part
pool.close()


def column(t, w, score):
    """A score of all runs, an array."""
    return np.array([scores[t, w, run][score] for run in range(RUNS)])


print(" " * 14, *(f"{score:>15}" for score in scores[jobs[0]]))
for t, w in [(t, w) for t in TEMPERATURES for w in WAYS]:
    print(f"T = {t:<4}{WAYS[w]:6}", *(f"{column(t, w, s).mean():15.4f}" for s in scores[jobs[0]]))
print(f"\nW = 8 minus exact, with a 95 % interval from {RUNS} pairs of runs")
for t, score in [(t, s) for t in TEMPERATURES for s in ("loss asked for", "test NLL", "accuracy")]:
    change = column(t, 8, score) - column(t, 1, score)
    half = stats.t.ppf(0.975, RUNS - 1) * change.std(ddof=1) / RUNS**0.5
    print(f"T = {t:<4}{score:15}{change.mean():+.4f} ({change.mean() - half:+.4f} to "
          f"{change.mean() + half:+.4f}); runs differ by {column(t, 1, score).std(ddof=1):.4f}")

# %% tags=["aside"]
fig, panels = figures.new(9.2, 3.7, columns=2)
for ax, score, title in zip(panels, ("test NLL", "spread"), ("What is scored", "What changed"),
                            strict=True):
    for index, t in enumerate(TEMPERATURES):
        values = np.array([column(t, w, score) for w in WAYS])
        look = figures.look(index)
        ax.plot(range(3), values, color=look["color"], linestyle="-", lw=0.7, alpha=0.5)
        ax.plot(range(3), values.mean(1), **look, label=f"T = {t:g}")
    ax.set(xticks=range(3), xticklabels=WAYS.values(), ylim=(0, None), title=title)
panels[0].set_ylabel("NLL of the test images in nats")
panels[1].set_ylabel("spread between samples in nats")
panels[1].legend()
figures.footnote(fig, f"{RUNS} runs (thin lines), S = 16, {EPOCHS} epochs; spread: mutual "
                 "information, 64 samples")
figures.show(fig, alt="Test NLL and spread between the samples. " + " ".join(
    f"T = {t:g}, {name}: NLL {column(t, w, 'test NLL').mean():.3f}, spread "
    f"{column(t, w, 'spread').mean():.3f}." for t in TEMPERATURES for w, name in WAYS.items()))

# %% [markdown]
# **Explain.** Two columns, two winners. The *loss asked for*, on the training images and with its
# KL, is smallest where it was minimised exactly. So far, so good. But at T = 1 plain averaging wins
# on the **test images**, and the interval leaves no doubt. Surprised? The right panel says why. The
# exact loss does not mind that samples disagree, as long as they are right on average. So it leaves
# the posterior wide. Under averaging every small group has to pay for disagreement, and the
# posterior becomes narrower. Here that helps, because at T = 1 the posterior is *too* wide: look
# how far the confidence lies below the accuracy. By luck the mistake pushes in a good direction.
#
# At T = 0.1 there is little spread left, and little to win or to lose on the test images: less than
# another seed would change. The accuracy changes little at either temperature.
#
# So what is exactness good for? Not for a better score every time. It is good for **knowing what
# you train**. Under plain averaging the number of ranks is a part of the loss. The same script
# trains one thing on 8 GPUs and another on 16, neither is what one GPU trains, and no setting tells
# you. If you want less spread, ask for it by a name that means the same everywhere: a lower
# temperature, an α between 0 and 1, or a loss of m samples at a time (Morningstar et al., below).
# Here the lower temperature bought far more than the mistake did.
#
# And be careful with what you have just seen. It is one small net on one small set of data. On
# yours the same mistake may push the wrong way.
#
# ## You can now
#
# - tell which objectives are linear in the samples, and which are not
# - say which way plain averaging errs, and estimate by how much
# - make any objective exact: gather the predictions, and keep your slice of the gradient
# - predict what gathering costs, in bytes and in memory
# - recognise two traps: dividing twice, and averaging scores
# - say what plain averaging trains instead, and judge whether that matters to you
#
# **Next:** notebook 07 takes all of this to images.
#
# ## References
#
# - Asena Karolin Özdemir, Lars H. Heyen, Arvid Weyrauch, Achim Streit, Markus Götz, Charlotte
#   Debus: *Sampling Parallelism for Fast and Efficient Bayesian Learning*,
#   [arXiv 2604.04736](https://arxiv.org/abs/2604.04736), 2026: the averaging, and that it is
#   approximate for losses like these.
# - J. M. Hernández-Lobato et al.: *Black-Box α-Divergence Minimization*,
#   [arXiv 1511.03243](https://arxiv.org/abs/1511.03243), 2016.
# - T. Gneiting, A. E. Raftery: *Strictly Proper Scoring Rules, Prediction, and Estimation*, Journal
#   of the American Statistical Association 102, 2007: the energy score.
# - Y. Burda, R. Grosse, R. Salakhutdinov: *Importance Weighted Autoencoders*,
#   [arXiv 1509.00519](https://arxiv.org/abs/1509.00519), 2015: a log of a mean of samples, and how
#   it depends on their number.
# - W. R. Morningstar, A. A. Alemi, J. V. Dillon: *PAC^m-Bayes: Narrowing the Empirical Risk Gap in
#   the Misspecified Bayesian Regime*, [arXiv 2010.09629](https://arxiv.org/abs/2010.09629), 2020:
#   a loss of m samples lies between the ELBO and the predictive NLL, and may be chosen on purpose.
# - F. Wenzel et al.: *How Good is the Bayes Posterior in Deep Neural Networks Really?*,
#   [arXiv 2002.02405](https://arxiv.org/abs/2002.02405), 2020: temperatures below 1, there of the
#   whole posterior, prior included.
# - E. Alpaydin, C. Kaynak: *Optical Recognition of Handwritten Digits*, UCI Machine Learning
#   Repository, 1998 (the data).
