# %% [markdown]
# # A weight is a distribution
#
# Train a network twice and you get two sets of weights, and two answers. Which one is right? Both
# fit the data. A *Bayesian* network keeps all answers that fit: each weight is not a number but a
# distribution. Where the answers agree, the network is sure. Where they do not, it says so.
#
# In this notebook you do this with a network of 37 weights and a famous record: carbon dioxide in
# the air at Mauna Loa. It has a hole in it. What does a network say about weeks that nobody
# measured?
#
# **You will be able to**
#
# - give every weight a prior, and see what the prior believes before there are data
# - train the same network with point weights and with a distribution for each weight
# - split the uncertainty of a prediction into an epistemic and an aleatoric part
# - hold mean-field variational inference against NUTS, and say where it is over-confident
# - say what the number of samples and the temperature change
#
# It takes about 60 minutes to work through. Run from top to bottom without stopping, the notebook
# needs about a minute at the `ci` scale on two cores and less than five minutes at the `laptop`
# scale (set `SPNB_SCALE` before JupyterLab starts to choose).

# %%
import copy
import math

import pyro
import torch
from pyro.infer import MCMC, NUTS, Predictive
from pyro.infer.autoguide import init_to_value
from torch import nn

import spnb
from spnb.teach import datasets, figures, scale
from spnb.teach.checks import nb01 as check
from spnb.teach.explore.fits import Fits, stack
from spnb.teach.explore.posterior import (
    draw_prediction, draw_record, longest_gap, posterior_explorer, share_inside)
from spnb.teach.passport import provenance

SEED = 0
STEPS = scale.pick(ci=600, laptop=1500, node=5000)  # of mean-field training
KEPT = scale.pick(ci=64, laptop=128, node=256)  # samples to look at
WARMUP, DRAWS, DEPTH = scale.pick(ci=(50, 50, 5), laptop=(150, 200, 7), node=(500, 1000, 8))
torch.set_num_threads(1)  # 37 weights: a second thread would only be in the way
print(f"scale: {scale.name()}, {STEPS} training steps, {WARMUP} + {DRAWS} steps of NUTS",
      provenance(SEED), sep="\n")

# %% [markdown]
# ## A record with a hole
#
# Since 1958 the observatory on Mauna Loa has measured how much CO2 the air holds, in ppm: molecules
# in a million molecules of dry air. Each spring the level peaks, then the plants of the northern
# summer draw it down. Over the years it rises.
#
# We learn from 20 months. In the middle of them lies the longest gap of the record: from January to
# May 1964 nothing was measured. We also hold back the half year that follows. The networks never
# see it; we only use it to judge them.

# %%
record = datasets.co2()
train, test = record.between(1963.4, 1965.0), record.between(1965.0, 1965.5)
gap = longest_gap(train)
print(record.sentence)
print(f"train: {train}; held out: {len(test)} weeks; the long gap: {len(gap)} weeks")

fig, (left, right) = figures.new(9.2, 3.1, columns=2, width_ratios=(2, 3))
left.plot(record.time, record.values, ".", ms=1.2, color=figures.BLACK)
left.axvspan(1963.4, 1965.5, color=figures.ORANGE, alpha=0.4)
left.set(title="the whole record", xlabel="year", ylabel="CO$_2$ in ppm")
draw_record(right, train, test)
right.set(title="our stretch", ylabel="")
right.legend(ncols=2, loc="upper left")
figures.show(fig, alt=f"Weekly CO2 rises from {record.values[0]:.0f} to {record.values[-1]:.0f} "
             "ppm from 1958 to 2001 with a yearly wave. Our stretch, May 1963 to June 1965, has a "
             f"hole of {len(gap)} weeks in early 1964; the last half year is held out.")

# %% [markdown]
# ## One number for each weight
#
# First the ordinary network: one input (the time), 12 tanh units, one output (the level). Inputs
# are years from the middle of the stretch. Levels are scaled by mean and standard deviation *of the
# training weeks alone*, so that the held-out weeks tell us nothing beforehand.

# %%
year = datasets.Scaling(train.time.mean().item(), 1.0)
ppm = datasets.Scaling.of(train.values)


def rows(time):
    """Network inputs [N, 1] for decimal years [N]."""
    return year.apply(time).unsqueeze(1)


x, y = rows(train.time), ppm.apply(train.values).unsqueeze(1)

torch.manual_seed(SEED)
plain = nn.Sequential(nn.Linear(1, 12), nn.Tanh(), nn.Linear(12, 1))
optimizer = torch.optim.Adam(plain.parameters(), lr=0.03)
for _ in range(1500):
    optimizer.zero_grad()
    loss = (plain(x) - y).square().mean()
    loss.backward()
    optimizer.step()
print(f"root mean squared error on the training weeks: {loss.item() ** 0.5 * ppm.scale:.2f} ppm")

# %% [markdown]
# **Predict** before you run the next cell: what will this network say about the weeks in the gap?
# And how can you tell from its answer that it has never seen them?

# %%
time = torch.linspace(1963.3, 1965.55, 160, dtype=torch.float64)
with torch.no_grad():
    curve = ppm.undo(plain(rows(time)).squeeze(1))
    ahead = ppm.undo(plain(rows(test.time)).squeeze(1))

fig, ax = figures.new(8, 3.1)
draw_record(ax, train, test)
ax.plot(time, curve, color=figures.BLUE, ls="-", label="network, point weights")
ax.legend(ncols=2, loc="upper left")
figures.footnote(fig, f"12 tanh units, seed {SEED}")
miss = (ahead - test.values).square().mean().sqrt()
figures.show(fig, alt=f"One smooth line through all measured weeks, through the gap and on. It "
             f"misses the held-out weeks by {miss:.1f} ppm and gives no sign of doubt.")

# %% [markdown]
# **Explain.** You cannot tell. The line through the gap is as thin and as confident as the line
# through the data. In the held-out half year it is simply wrong, and it does not know.
#
# ## A distribution for each weight
#
# Now the one new idea. Say beforehand what you believe about each weight, as a distribution: the
# **prior**. `spnb.BayesianModel` takes *your* network, a prior, and a **likelihood**: how the
# measurements scatter around the network's output. Here: normal, with a standard deviation of
# 0.5 ppm.
#
# Priors are plain `pyro.distributions` objects. The rule `fan_in(scale)` gives a weight that has n
# inputs the prior Normal(0, scale/√n), so that wide layers do not shout.

# %%
NOISE, PRIOR_SCALE = 0.5, 2.0  # in ppm; no unit


def make_model(prior_scale=PRIOR_SCALE, noise=NOISE):
    """The same network, with a prior over its weights and noise in ppm."""
    return spnb.BayesianModel(
        copy.deepcopy(plain),
        prior=spnb.priors.fan_in(prior_scale),
        likelihood=spnb.likelihoods.Normal(noise / ppm.scale),
    )


model = make_model()
for site in model.drawn:
    print(f"{site.name:<9} {site.shape.numel():>3} weights, each Normal(0, "
          f"{site.prior.stddev.max():.2f})")

# %% [markdown]
# What does such a prior *mean*? Nobody has a feeling for weights. But draw all weights from it, and
# you have a function; draw again, and you have another. Those you can look at.
#
# The model is a real Pyro model, so Pyro's own `Predictive` draws from it.
#
# **Predict:** what does a larger prior scale do to the functions: higher, steeper, or both?

# %%
def functions(model, weights, time):
    """What each row of weights [S, P] says, in ppm: [S, T]."""
    with torch.no_grad():
        scaled = model.predict(weights, torch.zeros(0), rows(time))
    return ppm.undo(scaled.squeeze(-1))


pyro.set_rng_seed(SEED)
prior_draws = {}
for s in (0.5, 2.0, 8.0):
    wide = make_model(prior_scale=s)
    prior_draws[s] = functions(wide, stack(wide, Predictive(wide, num_samples=200)(x)), time)

fig, axes = figures.new(9.2, 3.0, columns=3, sharey=True)
for ax, (s, drawn) in zip(axes, prior_draws.items(), strict=True):
    ax.plot(time, drawn[:12].T, lw=1, ls="-", color=figures.BLUE, alpha=0.7)
    ax.plot(train.time, train.values, ".", ms=3, color=figures.BLACK)
    ax.set(title=f"prior scale {s:g}", xlabel="year", ylim=(300, 340), xticks=(1964, 1965))
axes[0].set_ylabel("CO$_2$ in ppm")
figures.footnote(fig, f"12 draws from each prior, seed {SEED}; dots: data that no draw has seen")
figures.show(fig, alt="Functions drawn from three priors. " + "; ".join(
    f"prior scale {s:g}: typical range of a function {(d.amax(1) - d.amin(1)).median():.1f} ppm"
    for s, d in prior_draws.items()) + ".")

# %% [markdown]
# **Explain.** Both. A scale of 0.5 believes in almost flat lines: the yearly wave would come as a
# surprise. A scale of 8 believes in cliffs. The scale of 2 has about the right height, though few
# of its functions bend as often as the data do: it will have to be convinced. We take 2, *before*
# having fitted anything.

# %% [markdown]
# ### Exercise 1 · difficulty 1/5 · 5 minutes
# Put a number on what a prior believes. Which share of its functions stays between `low` and `high`
# in *all* weeks? `draws` has one function a row, `[S, T]`. Then try it on `prior_draws[8.0]`.

# %% tags=["exercise"]
def share_plausible(draws, low, high):
    # BEGIN SOLUTION
    # STUB: inside = ...  # [S, T], true where a function is between low and high
    # STUB: return ...  # share of functions that are inside in all weeks
    inside = (draws > low) & (draws < high)
    return inside.all(1).double().mean()
    # END SOLUTION

# %% [markdown] tags=["hint"]
# `inside.all(1)` is true for each row that is true throughout. The mean of truth values, as
# `double`, is a share.

# %% [markdown] tags=["expected"]
# A number between 0 and 1; for three functions of which one leaves the range, `0.667`. From 300 to
# 340 ppm, the share for the prior of scale 8 is well below that of scale 2.

# %%
check.exercise_1(share_plausible)

# %% [markdown]
# ## From prior to posterior
#
# Now show the network the data. Bayes' rule keeps the prior's draws that fit, and drops the others.
# What is left is the **posterior**. It has no formula for a network, so we approximate it.
#
# The simplest way is **mean-field variational inference**: give each weight a normal of its own,
# with a mean and a standard deviation, and move these 2 × 37 numbers until the normals are as close
# to the posterior as they can get. `spnb.fit` does it. In each step it draws `num_samples` samples
# of *all* weights and averages what they say. (Pyro calls the same number `num_particles`. We call
# it **S** throughout.)

# %%
fitted = spnb.fit(
    spnb.MeanField(model, init_scale=0.05),  # starts at the plain network's weights
    (x, y),
    num_samples=4,
    batch_size=len(x),
    epochs=STEPS,
    learning_rate=0.02,
    schedule="cosine",
    seed=SEED,
)
fitted.history

# %% [markdown]
# So what *is* a weight now? Look at all 37.

# %%
loc, sd = fitted.posterior.loc.detach(), fitted.posterior.scale.detach()
prior_sd = torch.cat([site.prior.stddev.reshape(-1) for site in model.drawn])
order, place = loc.argsort(), torch.arange(len(loc))

fig, ax = figures.new(8, 3.0)
ax.bar(place, 2 * prior_sd[order], bottom=-prior_sd[order], width=0.9, color="#DDDDDD",
       label="prior")
ax.errorbar(place, loc[order], sd[order], fmt="o", ms=4, lw=2, color=figures.BLUE, ls="none",
            label="posterior, mean field")
ax.set(xlabel="weight, in order of its mean", ylabel="value")
ax.legend(loc="upper left", ncols=2)
figures.footnote(fig, f"bars: ± 1 standard deviation; S = 4, {STEPS} steps, seed {SEED}")
narrower = (sd < prior_sd / 2).double().mean()
figures.show(fig, alt=f"Mean and standard deviation of each of {len(loc)} weights over the "
             f"prior's. {narrower:.0%} of them are now less than half as wide as the prior.")

# %% [markdown]
# ## Two kinds of not knowing
#
# Draw many samples of the weights. Each is a network, each network a curve. `spnb.predict` does
# both.

# %%
draws = spnb.predict(fitted.posterior, rows(time), num_samples=KEPT, seed=SEED)  # [S, T, 1]
draws = ppm.undo(draws).squeeze(-1)

fig, ax = figures.new(8, 3.8)
draw_prediction(ax, train, test, time, draws, NOISE, lines=8)
ax.legend(loc="upper left", ncols=2)
figures.footnote(fig, f"mean field, S = {KEPT}, 8 of them drawn; noise {NOISE} ppm, seed {SEED}")
figures.show(fig, alt=f"The mean of {KEPT} curves follows the measured weeks, inside a narrow band "
             f"of epistemic and a wider band of total uncertainty. On average the curves differ by "
             f"{draws.std(0).mean():.2f} ppm (one standard deviation).")

# %% [markdown]
# There are two bands because there are two reasons not to know.
#
# - **Epistemic**: the *samples disagree*. More data would help. It is the spread **between** them.
# - **Aleatoric**: even if one sample were right, *measurements scatter*. More data would not help.
#   It is the spread **within** a sample, here the noise.
#
# They add up, as variances. This is the law of total variance:
#
# $$ \underbrace{\operatorname{Var}(y)}_{\text{total}}
#  = \underbrace{\operatorname{Var}_s(m_s)}_{\text{epistemic}}
#  + \underbrace{\operatorname{E}_s(v_s)}_{\text{aleatoric}} $$
#
# with the mean $m_s$ and the variance $v_s$ that sample s predicts. The bands show ± 1.645 standard
# deviations, which is 90 % of a normal.

# %% [markdown]
# ### Exercise 2 · difficulty 2/5 · 10 minutes
# Write it down for the general case, in which each sample also has its own noise. Take `means` and
# `sds`, both `[S, T]`, and return two *variances*, `[T]` each: epistemic, aleatoric.

# %% tags=["exercise"]
def split_variance(means, sds):
    # BEGIN SOLUTION
    # STUB: epistemic = ...  # between the samples
    # STUB: aleatoric = ...  # within them
    epistemic = means.var(0)
    aleatoric = sds.square().mean(0)
    # END SOLUTION
    return epistemic, aleatoric

# %% [markdown] tags=["hint"]
# Samples are dimension 0. `sds` are standard deviations: what adds up is their square.

# %% [markdown] tags=["expected"]
# Two tensors `[T]`. If all samples say the same, the first is zero; if no sample has noise, the
# second is.

# %%
check.exercise_2(split_variance)

# %% [markdown]
# ## Ask a better judge
#
# Mean field has a price. With one normal for each weight it cannot say "if this weight is large,
# that one must be small". Does that matter? Ask a method that can: **NUTS** walks through the
# weights and, given time, visits every region as often as the posterior says. It is slow and does
# not scale. But here the network is tiny, so we can afford it.
#
# It gets *the very same model object*, because that is a Pyro model. Give it some 15 seconds at the
# `ci` scale, a minute or two at the `laptop` scale.
#
# **Predict:** where will the two differ most: at the measured weeks, in the gap, or ahead?

# %%
start = model.unflatten(model.flatten(model.drawn), model.drawn)  # the plain network's weights
kernel = NUTS(model, max_tree_depth=DEPTH, init_strategy=init_to_value(values=start))
chain = MCMC(kernel, num_samples=DRAWS, warmup_steps=WARMUP, disable_progbar=True)
pyro.set_rng_seed(SEED)
chain.run(x, y)
nuts_weights = stack(model, chain.get_samples())
print(f"{len(nuts_weights)} draws of {nuts_weights.shape[1]} weights, "
      f"{len(chain.diagnostics()['divergences']['chain 0'])} divergences")

# %% [markdown]
# And what might have been in the gap? Nobody knows. But there is a fair guess that owes nothing to
# a network: take the same week one year before and one year after, and average, which also takes
# out the steady rise. It uses weeks that the networks never see. For weeks that were measured we
# can check how good the guess is.

# %%
def neighbours(week):
    """Mean of the record one year before and one year after some weeks [N]."""
    nearest = [(record.time - at.unsqueeze(1)).abs().argmin(1) for at in (week - 1, week + 1)]
    return (record.values[nearest[0]] + record.values[nearest[1]]) / 2


off = (neighbours(train.time) - train.values).square().mean().sqrt()
print(f"typical error of this guess at the measured weeks: {off:.2f} ppm")

key = spnb.Key(SEED).fold("predict")  # the draws that spnb.predict made above
methods = {"mean field": fitted.posterior.draw(range(KEPT), key).detach(), "NUTS": nuts_weights}
fig, axes = figures.new(9.6, 3.9, columns=2, sharey=True)
for ax, (name, weights) in zip(axes, methods.items(), strict=True):
    draw_prediction(ax, train, test, time, functions(model, weights, time), NOISE)
    ax.plot(gap, neighbours(gap), "D", ms=3.5, mfc="white", color=figures.PURPLE,
            label="guess from 1963 and 1965")
    ax.set_title(f"{name}, S = {len(weights)}")
axes[1].set_ylabel("")
fig.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
figures.footnote(fig, f"same model, same data; noise {NOISE} ppm, seed {SEED}")
widths = "; ".join(f"{name} from {min(w):.2f} to {max(w):.2f} ppm" for name, weights in
                   methods.items() for w in [functions(model, weights, time).std(0)])
figures.show(fig, alt="Mean field and NUTS side by side, with both bands, the data and the guess "
             f"in the gap. Epistemic standard deviation over time: {widths}.")

# %% [markdown]
# Now in numbers: how much do the samples disagree, and does a band of 90 % hold about 90 % of the
# weeks?

# %%
places = {"measured": (train.time, train.values), "gap": (gap, neighbours(gap)),
          "ahead": (test.time, test.values)}
print(f"{'':<12}epistemic std. dev. in ppm    share inside the 90 % band")
print(f"{'':<12}" + "".join(f"{place:>9}" for place in [*places, *places]))
spread = {}
for name, weights in methods.items():
    said = [(functions(model, weights, at), values) for at, values in places.values()]
    spread[name] = torch.stack([curves.std(0).mean() for curves, _ in said])
    held = [share_inside(curves, NOISE, values) for curves, values in said]
    print(f"{name:<12}" + "".join(f"{v:>9.2f}" for v in spread[name])
          + "".join(f"{v:>9.0%}" for v in held))
ratio = spread["NUTS"] / spread["mean field"]
print(f"{'ratio':<12}" + "".join(f"{v:>9.2f}" for v in ratio))

# %% [markdown]
# **Explain.** Read the last line. Where it is below 1, mean field is *less* sure than it could be;
# where it is above 1, mean field is *over-confident*. It errs in both directions. Why? To be
# precise at the data, weights must move together: a steeper unit here, a smaller one there.
# Independent normals cannot do that. They shrink the freedom that the gap would need, and still
# wobble where the data pin the curve down. That mean-field posteriors cannot widen *between* data
# is a known result (Foong et al.).
#
# Be fair to both sides. NUTS is only the better judge if its chain has run long enough, and at the
# `ci` scale it is short: neighbouring draws resemble each other. The next cell counts how many
# independent draws the chain is worth. And look at the guess in the gap: the rise of early 1964 may
# well have come later than either method thinks. A posterior is only as good as its *model*, and
# nothing in this one knows that years resemble each other.

# %%
at = torch.cat([train.time, gap, test.time])
curves = functions(model, nuts_weights, at)
worth = pyro.ops.stats.effective_sample_size(curves.unsqueeze(0), sample_dim=1, chain_dim=0)
for name, part in zip(("measured weeks", "gap", "ahead"),
                      worth.split([len(train), len(gap), len(test)]), strict=True):
    print(f"{name:<15} {len(curves)} draws are worth about {part.median():.0f} independent ones")

# %% [markdown]
# ### Exercise 3 · difficulty 2/5 · 10 minutes
# A band of 90 % should hold 90 % of new measurements. Write the test: which share of `targets`
# `[T]` lies within ± 1.645 *total* standard deviations of the samples' mean? `means` is `[S, T]`,
# `noise` a standard deviation.

# %% tags=["exercise"]
def coverage(means, noise, targets):
    # BEGIN SOLUTION
    # STUB: total = ...  # standard deviation, [T]: epistemic and aleatoric together
    # STUB: return ...  # share of targets inside the band
    total = (means.var(0) + noise**2).sqrt()
    return ((targets - means.mean(0)).abs() < 1.645 * total).double().mean()
    # END SOLUTION

# %% [markdown] tags=["hint"]
# Variances add; take the root at the end. `(targets - means.mean(0)).abs()` is the distance from
# the middle.

# %% [markdown] tags=["expected"]
# A number between 0 and 1. If mean and targets agree exactly it is `1.0`, whatever the noise.

# %%
check.exercise_3(coverage)

# %% [markdown]
# ## How many samples?
#
# A prediction with S samples is an average, and averages are uncertain too. The draws of a
# mean-field posterior are independent, so we can watch: make 4096, cut them into groups of S, and
# see how much the groups' means differ, one half year ahead.
#
# **Predict:** how many times more samples does half the error cost?

# %%
many = spnb.predict(fitted.posterior, rows(test.time[-1:]), num_samples=4096, seed=SEED,
                    samples_in_flight=64)  # 64 tiny networks at once
many = ppm.undo(many).flatten()
sizes = [1, 2, 4, 8, 16, 32, 64]
found = [many.view(-1, s).mean(1).std().item() for s in sizes]

fig, ax = figures.new(6.4, 3.1)
ax.plot(sizes, found, "o", color=figures.BLUE, ms=7, label="groups of S samples")
ax.plot(sizes, [many.std() / s**0.5 for s in sizes], **figures.look(1, marker=False),
        label="spread / √S")
ax.set_xscale("log", base=2)
ax.set_yscale("log", base=2)
ax.set(xlabel="samples S", ylabel="error of the mean in ppm", xticks=sizes, xticklabels=sizes)
ax.yaxis.set_major_formatter("{x:.3g}")
ax.legend()
figures.footnote(fig, f"{len(many)} mean-field draws at {test.time[-1]:.2f}, seed {SEED}")
figures.show(fig, alt=f"The error of a mean over S samples falls from {found[0]:.2f} ppm at S = 1 "
             f"to {found[-1]:.3f} ppm at S = {sizes[-1]}, along the line spread over root S.")

eight = spnb.predict(fitted.posterior, rows(time), num_samples=8, seed=SEED)
assert torch.equal(ppm.undo(eight).squeeze(-1), draws[:8])
print(f"the first 8 of {KEPT} samples are the very curves that 8 samples give")

# %% [markdown]
# The last line looks like a detail and is the seed of this course. **A sample index owns its
# randomness**: sample 5 is the same draw whether you ask for 8 or 800, here or on another GPU. And
# each of these samples was computed without knowing of the others. They could all have been
# computed *at the same time*. That is notebook 03.

# %% [markdown]
# ### Exercise 4 · difficulty 3/5 · 10 minutes
# Turn it round. The samples spread by `spread` ppm, and the mean over them should be uncertain by
# at most `error` ppm. What is the smallest S?

# %% tags=["exercise"]
def samples_needed(spread, error):
    # BEGIN SOLUTION
    # STUB: return ...  # a whole number
    return math.ceil((spread / error) ** 2 - 1e-9)
    # END SOLUTION

# %% [markdown] tags=["hint"]
# The error is spread / √S. Solve for S, then round *up*.

# %% [markdown] tags=["expected"]
# `samples_needed(0.8, 0.1)` is `64`; if one sample is good enough already, the answer is `1`.

# %%
check.exercise_4(samples_needed)

# %% [markdown]
# ## Heat
#
# The loss has two parts: fit the data, and stay close to the prior. The **temperature** T weighs
# the second: T = 1 is Bayes' rule, T < 1 trusts the data more than the rule allows, as if each
# measurement had been made 1/T times, T > 1 less. The likelihood is *tempered*: its power 1/T
# stands where it stood. You will meet T < 1 in papers on deep networks, because it often scores
# better there. A *cold posterior* (Wenzel et al., below) is a little more: the power 1/T of prior
# and likelihood. With a normal prior that is the same but for the prior's variance, times T.
#
# **Predict:** what happens to the band as T goes to 0? Which network of this notebook do you get?

# %%
tempered = {1.0: fitted.posterior}
for t in (0.1, 3.0):
    tempered[t] = spnb.fit(
        spnb.MeanField(model, init_scale=0.05), (x, y), num_samples=4,
        objective=spnb.ELBO(temperature=t), batch_size=len(x), epochs=STEPS,
        learning_rate=0.02, schedule="cosine", seed=SEED).posterior
heats = {t: spnb.predict(each, rows(time), num_samples=KEPT, seed=SEED).squeeze(-1).std(0)
         * ppm.scale for t, each in tempered.items()}

fig, ax = figures.new(8, 3.0)
for i, (t, band) in enumerate(sorted(heats.items())):
    ax.plot(time, band, **figures.look(i, marker=False), label=f"T = {t:g}")
ax.axvspan(gap[0], gap[-1], facecolor="none", edgecolor="#B0B0B0", hatch="//", lw=0)
ax.set(xlabel="year", ylabel="epistemic std. dev.\nin ppm", ylim=(0, None))
ax.legend(ncols=3, loc="upper center")
figures.footnote(fig, f"mean field, S = {KEPT}, seed {SEED}; hatched: nothing measured")
means = ", ".join(f"{b.mean():.2f} ppm at T = {t:g}" for t, b in sorted(heats.items()))
figures.show(fig, alt=f"Epistemic standard deviation over time at three temperatures: {means}.")

# %% [markdown]
# **Explain.** At low temperatures the posterior is narrow: at T = 0 nothing holds the standard
# deviations up, and the plain network with its single line is back. Heat does not repair mean field
# either. It makes the band wider or narrower, but does not open it *where* it should open.

# %% [markdown]
# ## Explore
#
# Now play. The explorer shows mean field and NUTS from above; each other setting is really fitted
# when you first ask for it, which takes some seconds, and then kept. Try these:
#
# 1. Method *prior*: what did the network believe before it saw anything?
# 2. A noise of 0.25 ppm: which band shrinks, which does not? Then 1 ppm.
# 3. Prior scale 1, then 4, with NUTS: what does the network expect half a year ahead?
# 4. S = 2: why is the epistemic band so restless?

# %%
fits = Fits(make_model, train, test, num_samples=KEPT, steps=STEPS, seed=SEED)
for name, weights in methods.items():
    fits.keep(name, PRIOR_SCALE, NOISE, weights)
explorer = posterior_explorer(fits, prior_scale=PRIOR_SCALE, noise=NOISE)
explorer

# %% [markdown]
# ## Your own points
#
# Last, a playground in which nothing has to be trained. Its network has 80 hidden units that stand
# still; only the last layer is uncertain. Then the posterior has a *formula*, and the best mean
# field has one, too. So you can put points anywhere and see both at once. Press into the figure to
# add a point, and drag points about. (By keyboard: choose a point, and move it by *its x* and *its
# y*; *Add a point* puts one into the widest gap.)
#
# **Predict – move – explain.**
#
# 1. Put one point into the gap in the middle. How far does the band close, and how far away from
#    the point? Then drag it up and down: does the *width* of the band depend on its height?
# 2. Choose *mean field*. It has the right mean. Where is its band too wide, and why does it not
#    open in the gap? (Each weight has a width of its own, but the weights no longer know of each
#    other.)
# 3. Take the noise down to 0.05. Which band follows?

# %%
from spnb.teach.explore.playground import Playground

Playground()

# %% [markdown]
# ## You can now
#
# - give every weight a prior, and see what the prior believes before there are data
# - train the same network with point weights and with a distribution for each weight
# - split the uncertainty of a prediction into an epistemic and an aleatoric part
# - hold mean-field variational inference against NUTS, and say where it is over-confident
# - say what the number of samples and the temperature change
#
# **Next:** each step drew 4 samples of all weights. Notebook 02 asks what a sample costs. (More
# methods than these two, on the same record: notebook 10.)
#
# ## References
#
# - C. Blundell et al.: *Weight Uncertainty in Neural Networks*,
#   [arXiv 1505.05424](https://arxiv.org/abs/1505.05424), 2015: mean field for networks.
# - M. D. Hoffman, A. Gelman: *The No-U-Turn Sampler*,
#   [arXiv 1111.4246](https://arxiv.org/abs/1111.4246), 2011.
# - A. Y. K. Foong et al.: *On the Expressiveness of Approximate Inference in Bayesian Neural
#   Networks*, [arXiv 1909.00719](https://arxiv.org/abs/1909.00719), 2020: why no band opens.
# - R. M. Neal: *Bayesian Learning for Neural Networks*, Springer, 1996: priors over functions.
# - F. Wenzel et al.: *How Good is the Bayes Posterior in Deep Neural Networks Really?*,
#   [arXiv 2002.02405](https://arxiv.org/abs/2002.02405), 2020: cold posteriors.
# - [Pyro](https://pyro.ai): distributions, NUTS, `Predictive`.
# - C. D. Keeling, T. P. Whorf: *Atmospheric CO2 concentrations derived from flask air samples at
#   sites in the SIO network*, Carbon Dioxide Information Analysis Center, 2004 (the data).
