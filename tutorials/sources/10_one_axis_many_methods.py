# %% [markdown]
# # One axis, many methods
#
# So far every posterior of this course was a mean-field normal. But the literature is full of other
# ways to be Bayesian: dropout at test time, ensembles, averages of the optimiser's path, Laplace's
# approximation, Langevin dynamics, Hamiltonian Monte Carlo. They look like different worlds. Here
# they are one world: **a method is a way from a sample's number to a sample of the weights**. The
# rest, sharing samples between workers, predicting, scoring, saving, was written once.
#
# So you can do what is otherwise a week of work: put nine methods side by side on three real
# problems, and ask who is right, who is calibrated, and what it costs.
#
# **You will be able to**
#
# - say of each of nine methods what a sample of it is, and what it cannot say
# - write the heart of two of them: a dropout mask and a Langevin step
# - measure how far each is from NUTS, the reference
# - compare methods fairly: same prior, same data, errors over many splits, costs beside scores
# - say which methods have to communicate while they train, and how well each is parallel
# - add a method of your own, which then runs in every layout
#
# It takes about 75 minutes to work through. Run from top to bottom without stopping, the notebook
# needs about a minute at the `ci` scale on two cores and some four minutes at the `laptop` scale
# (set `SPNB_SCALE` before JupyterLab starts to choose).

# %%
import copy
import statistics
import time as clock

import pyro.distributions as dist
import torch
from torch import nn

import spnb
from spnb.maths.networks import mlp
from spnb.teach import datasets, figures, scale
from spnb.teach.checks import nb10 as check
from spnb.teach.explore.board import Judged, Score, comparison_board
from spnb.teach.explore.posterior import draw_prediction, longest_gap
from spnb.teach.passport import provenance
from spnb.teach.recipes import recorded, regression
from spnb.teach.report import draw_reliability

SEED, KEPT = 0, scale.pick(ci=64, laptop=128, node=256)  # KEPT: samples to look at
WARMUP, DRAWS, DEPTH = scale.pick(ci=(50, 60, 5), laptop=(200, 250, 7), node=(1000, 1000, 8))
LONG, SHORT = scale.pick(ci=(1000, 240), laptop=(3000, 1500), node=(10000, 5000))  # steps
still = {"schedule": "constant"}  # for methods that live from the optimiser's movement
torch.set_num_threads(1)  # the workers want the cores
pool = spnb.WorkerPool(2)
print(f"scale: {scale.name()}\n{provenance(SEED)}")

# %% [markdown]
# ## What is a sample?
#
# Begin where everything can be seen: a model with *two* weights. A linear model with two inputs
# that nearly always rise and fall together. Then the data pin down the sum of the two weights, but
# hardly their difference: the posterior is a long, thin, tilted ellipse. For a linear model it has
# a formula.

# %%
generator = torch.Generator().manual_seed(SEED)
both = torch.randn(16, 1, generator=generator, dtype=torch.float64)
x2 = both + 0.4 * torch.randn(16, 2, generator=generator, dtype=torch.float64)
NOISE2, TRUE = 0.7, torch.tensor([[0.9], [0.3]], dtype=torch.float64)
y2 = x2 @ TRUE + NOISE2 * torch.randn(16, 1, generator=generator, dtype=torch.float64)

net = nn.Linear(2, 1, bias=False).double()
nn.init.zeros_(net.weight)
linear = spnb.BayesianModel(net, dist.Normal(0, 1), spnb.likelihoods.Normal(NOISE2))
exact_cov = torch.linalg.inv(x2.T @ x2 / NOISE2**2 + torch.eye(2))  # the formula
exact_mean = (exact_cov @ x2.T @ y2 / NOISE2**2).squeeze(1)
correlation = exact_cov[0, 1] / exact_cov.diagonal().prod().sqrt()
print(f"mean {exact_mean.tolist()}, correlation {correlation:.2f}")

# %% [markdown]
# Now nine methods get this model. All are made from it by one call, and trained by the same
# `spnb.fit`; only NUTS is a function of its own, since it has nothing to train. (Two weights are
# too few to be shared. So each worker trains half of the methods, by itself.)
#
# | method | a sample of it is | |
# |---|---|---|
# | `Point` | the one best place, always the same | the plain network |
# | `Ensemble` | one of M networks, each trained from its own start | Lakshminarayanan 2017 |
# | `MCDropout` | the trained weights with some units left out | Gal 2016 |
# | `MeanField` | a normal for each weight | Blundell 2015 |
# | `LowRank` | the same, plus some directions in which weights move together | Ong 2018 |
# | `SWAG` | a normal fitted to the path of the optimiser | Maddox 2019 |
# | `Laplace` | a normal as wide as the loss is flat at its minimum | MacKay 1992 |
# | `SGMCMC` | a place where a noisy descent came by | Welling 2011, Zhang 2020 |
# | `nuts` | a place where a rolling ball without friction came by | Hoffman 2011 |
#
# **Predict** before you run the next cell: whose dots will fill the ellipse? Who will be too narrow
# and round? Who is a single dot?

# %% tags=["aside"]
def half_of_them(entries, data, usual):
    """What one worker trains: every second method."""
    mine = list(entries)[torch.distributed.get_rank()::2]
    return {name: spnb.fit(entries[name][0], data, seed=SEED, **usual | entries[name][1]).posterior
            for name in mine}


def train_each(entries, data, usual):
    """The posteriors of all methods, trained with the usual options and their own."""
    first, second = pool.run(half_of_them, entries, data, usual)
    return {name: (first | second)[name] for name in entries}


# %% tags=["aside"]
few = {"epochs": scale.pick(ci=80, laptop=150, node=150), "batch_size": 16,
       "learning_rate": 0.1, "schedule": "cosine"}
tried = {
    "Point": (spnb.Point(linear), {}),
    "Ensemble": (spnb.Ensemble(linear, 8), {}),
    "MCDropout": (spnb.MCDropout(linear, {"weight": 0.1}), {}),
    "MeanField": (spnb.MeanField(linear, 0.2), {}),
    "LowRank": (spnb.LowRank(linear, rank=1, init_scale=0.2), {}),
    "SWAG": (spnb.SWAG(linear), still | {"batch_size": 4}),
    "Laplace": (spnb.Laplace(linear, "full"), {}),
    "SGMCMC": (spnb.SGMCMC(linear, chains=16, cycles=2, keep=4), still | {"learning_rate": 0.1}),
}
clouds = train_each(tried, (x2, y2), few)
clouds["NUTS"] = spnb.nuts(linear, (x2, y2), num_chains=1, num_samples=128, warmup=30).posterior

# %% tags=["aside"]
angle = torch.linspace(0, 2 * torch.pi, 100, dtype=torch.float64)
ring = torch.stack([angle.cos(), angle.sin()])  # the circle, pulled into the ellipse
ellipse = exact_mean[:, None] + 2.146 * torch.linalg.cholesky(exact_cov) @ ring

fig, panels = figures.new(8.4, 7.6, rows=3, columns=3, sharex=True, sharey=True)
words = []
for ax, (name, q) in zip(panels.flat, clouds.items(), strict=True):
    dots = q.draw(range(min(128, q.num_draws or 128)), spnb.Key(SEED)).detach()
    ax.plot(*ellipse, color=figures.BLACK, ls="--", lw=1.2)
    ax.plot(*dots.T, "o", ms=3.5, color=figures.BLUE, alpha=0.5, ls="none")
    ax.set(title=name, xlim=(-0.6, 1.9), ylim=(-0.6, 1.9), aspect="equal")
    words.append(f"{name} {dots.std(0, correction=0).mean():.2f}")
for ax in panels[-1]:
    ax.set_xlabel("first weight")
for ax in panels[:, 0]:
    ax.set_ylabel("second weight")
figures.footnote(fig, f"dashed: 90 % of the exact posterior; 128 samples or all there are, "
                 f"seed {SEED}")
figures.show(fig, alt="Samples of two weights by nine methods, over the exact ellipse, which is "
             f"tilted with a correlation of {correlation:.2f}. Mean standard deviation: exact "
             f"{exact_cov.diagonal().sqrt().mean():.2f}; " + ", ".join(words) + ".")

# %% [markdown]
# **Explain.** Go through them.
#
# - *Point* is a dot. So is the *ensemble*: a linear model has one best place, and all eight
#   networks find it. Ensembles live from landscapes with *several* valleys.
# - *Dropout* gives a few dots: each weight is there or not. That is a posterior of a different
#   kind, and has little to do with the ellipse.
# - *Mean field* lies inside the ellipse, narrow and round: it cannot tilt. *Low rank* can, with one
#   direction for two weights.
# - *SWAG* has the spread of the optimiser, which depends on the learning rate, not on Bayes' rule.
# - *Laplace*, *SGMCMC* and *NUTS* fill the ellipse. Laplace is exact here, because the loss of a
#   linear model *is* a parabola. That of a network is not.

# %% [markdown]
# ### Exercise 1 · difficulty 2/5 · 6 minutes
# Write dropout's sample. `weight` is a layer, `[outputs, inputs]`. `there` is `[inputs]`, 1 for an
# input unit that stays and 0 for one that is left out, which happens with probability `rate`. On
# average over the masks the layer shall be the trained one.

# %% tags=["exercise"]
def thinned(weight, there, rate):
    # BEGIN SOLUTION
    # STUB: return ...
    return weight * there / (1 - rate)
    # END SOLUTION

# %% [markdown] tags=["hint"]
# The mean of `there` is `1 - rate`. What must you divide by? Broadcasting does the columns.

# %% [markdown] tags=["expected"]
# With a rate of 0.5, a column is either zero or twice the trained one.

# %%
check.exercise_1(thinned)

# %% [markdown]
# ## A real curve
#
# Back to the carbon dioxide of notebook 01: 20 months of weekly values with a hole, and half a year
# held out. The network has 37 weights, so NUTS is feasible. It is the **reference**: run long
# enough, it samples the true posterior of this model. Each of the two workers runs its own chains.

# %% tags=["aside"]
record = datasets.co2()
train, test = record.between(1963.4, 1965.0), record.between(1965.0, 1965.5)
gap = longest_gap(train)
year, ppm = datasets.Scaling(train.time.mean().item(), 1.0), datasets.Scaling.of(train.values)
time = torch.linspace(1963.3, 1965.55, 160, dtype=torch.float64)
NOISE = 0.5  # ppm


def rows(time):
    """Network inputs [N, 1] for decimal years [N]."""
    return year.apply(time).unsqueeze(1)


co2 = rows(train.time), ppm.apply(train.values).unsqueeze(1)
torch.manual_seed(SEED)
model = spnb.BayesianModel(mlp([1, 12, 1], nn.Tanh), spnb.priors.fan_in(2.0),
                           spnb.likelihoods.Normal(NOISE / ppm.scale))
begin = clock.perf_counter()
chains = pool.run(spnb.nuts, model, co2, layout=spnb.Layout(sample=2), seed=SEED,
                  num_chains=scale.pick(ci=2, laptop=4, node=8), num_samples=DRAWS,
                  warmup=WARMUP, max_tree_depth=DEPTH)[0]
print(f"{chains.posterior.num_draws} draws in {clock.perf_counter() - begin:.0f} s, "
      f"{chains.divergent} of them divergent")

# %% [markdown]
# The others. First the point. Then all others *start where the point ended*, so that they differ by
# what they are, and not by how far an optimiser came. (Other members and chains than the first
# start anew; that is their idea.)

# %% tags=["aside"]
full = {"batch_size": len(train), "learning_rate": 0.02, "schedule": "cosine", "epochs": SHORT}
long, four = {"learning_rate": 0.03, "epochs": LONG}, {"num_samples": 4, "samples_in_flight": 4}
point = spnb.fit(spnb.Point(model), co2, seed=SEED, **full | long).posterior
best = copy.deepcopy(model)  # the others start at its weights
best.net.load_state_dict(model.unflatten(point.loc.detach(), model.drawn))
posteriors = {"point": point} | train_each({
    "ensemble": (spnb.Ensemble(best, 8), long | {"samples_in_flight": 8}),
    "MC dropout": (spnb.MCDropout(best, 0.05), four),
    "mean field": (spnb.MeanField(best, 0.05, antithetic=True), four),
    "low rank": (spnb.LowRank(best, 4, 0.05, antithetic=True), four),
    "SWAG": (spnb.SWAG(best), still | {"batch_size": 16, "epochs": SHORT // 2}),
    "Laplace": (spnb.Laplace(best, "full"), {}),
    "Laplace, last layer": (spnb.Laplace(best, "full", "last"), {}),
    "SG-MCMC": (spnb.SGMCMC(best, chains=8, cycles=4, keep=4, exploring=0.3, friction=0.05),
                still | {"epochs": LONG, "samples_in_flight": 8}),
}, co2, full) | {"NUTS": chains.posterior}

# %% tags=["aside"]
def curves(posterior, at, samples=KEPT):
    """What its samples say, in ppm [S, T]."""
    samples = min(samples, posterior.num_draws or samples)
    draws = spnb.predict(posterior, rows(at), num_samples=samples, samples_in_flight=64)
    return ppm.undo(draws).squeeze(-1)


said = {name: curves(posterior, time) for name, posterior in posteriors.items()
        if name != "NUTS"}
reference = curves(chains.posterior, time, chains.posterior.num_draws)

# %% tags=["aside"]
centre, half = reference.mean(0), 1.645 * (reference.var(0) + NOISE**2).sqrt()
fig, panels = figures.new(10.4, 8.0, rows=3, columns=3, sharex=True, sharey=True)
for ax, (name, drawn) in zip(panels.flat, said.items(), strict=True):
    draw_prediction(ax, train, test, time, drawn, NOISE)
    for edge in (centre - half, centre + half):
        ax.plot(time, edge, color=figures.VERMILLION, ls="--", lw=1.3, label="90 % of NUTS")
    ax.set(title=name, xlabel="year" if ax in panels[-1] else "", ylim=(311, 328),
           xticks=(1964, 1965))
    ax.set_ylabel("CO$_2$ in ppm" if ax in panels[:, 0] else "")
labels = dict(zip(*reversed(panels[0, 0].get_legend_handles_labels()), strict=True))
fig.legend(labels.values(), labels, loc="outside upper center", ncols=4)
figures.footnote(fig, f"S = {KEPT} or all there are; noise {NOISE} ppm, seed {SEED}")
figures.show(fig, alt="Nine panels, one for each method: record, mean and two 90 % bands, with the "
             "edges of that of NUTS. Mean epistemic standard deviation: " + "; ".join(
                 f"{name} {drawn.std(0, correction=0).mean():.2f} ppm"
                 for name, drawn in said.items()) + ".")

# %% [markdown]
# **Predict:** the dashed lines are the edges of NUTS's band. Whose band is nearest? Rank three
# methods by eye, then let a number decide.
#
# The number is the **Wasserstein distance** between two clouds of draws at one point in time: how
# far, on average, a draw has to be moved to turn one cloud into the other. It is in ppm, it counts
# wrong means as well as wrong widths, and zero means the same distribution. The last row is the
# reference against itself, one half of its draws against the other: nobody can be measured better
# than that.

# %% tags=["aside"]
past, inside = time > train.time[-1], (time > gap[0]) & (time < gap[-1])
places = {"measured": ~past & ~inside, "gap": inside, "ahead": past}
STATED = {"point": 0.45, "ensemble": 0.45, "MC dropout": 1.3, "mean field": 0.35, "low rank": 0.3,
          "SWAG": 0.45, "Laplace": 0.35, "Laplace, last layer": 0.25, "SG-MCMC": 0.25,
          "NUTS, half and half": 0.1}
slack = scale.pick(ci=2.5, laptop=1.0, node=1.0)  # short runs are further away
print(f"{'distance to NUTS in ppm':<24}" + "".join(f"{place:>10}" for place in places)
      + f"{'overall':>10}{'within':>10}")
compared = {name: (curves(posterior, time, 256), reference)
            for name, posterior in posteriors.items() if name != "NUTS"}
compared["NUTS, half and half"] = reference[::2], reference[1::2]
for name, pair in compared.items():
    each = spnb.scores.wasserstein(*pair)
    found = [each[mask].mean().item() for mask in places.values()] + [each.mean().item()]
    print(f"{name:<24}" + "".join(f"{v:>10.2f}" for v in found) + f"{slack * STATED[name]:>10.2f}")
    assert found[-1] < slack * STATED[name], f"{name} is further from NUTS than is stated"

# %% [markdown]
# **Explain.** Go through the panels again, with the numbers beside them.
#
# - The *point* has no width, but the right mean, and so it is not far off where the true band is
#   narrow. The *ensemble* is hardly wider: its networks found the same valley.
# - *Dropout* is far away everywhere. Of twelve units, one that is missing changes the whole curve.
# - *Mean field* and *low rank* are good between the data, and too narrow ahead.
# - *SWAG* is as wide as its optimiser happens to swing.
# - *Laplace* bends the network straight at its best place: its samples are those of a linear model.
#   Between the data that is excellent. Far ahead a straight line runs away where the network would
#   not. Over the *last layer* alone it takes the features as they are. That is little, and here it
#   is the part that matters.
# - *SG-MCMC* visits what NUTS visits, with less care. Given time, it comes nearest of all: at the
#   `laptop` scale to 0.12 ppm. At the `ci` scale its chains are too short, and some are still on
#   their way.
#
# ### Exercise 2 · difficulty 3/5 · 10 minutes
# Write the heart of SG-MCMC, a step of stochastic-gradient Langevin dynamics. Walk down the
# gradient by η, and add normal noise with a variance of 2 η / N, where N is the number of rows: the
# gradient is that of a *mean* over them. `noise` is standard normal.
#
# (This gradient is of all rows. That of a mini-batch of B rows brings noise of its own, of which
# the step knows nothing: it acts like a temperature that is higher by the factor 1 + η σ² N / 2B,
# σ² being the variance of a row's gradient. `docs/methods.md` has the rule for any friction.)

# %% tags=["exercise"]
def langevin(weights, gradient, eta, n, noise):
    # BEGIN SOLUTION
    # STUB: return ...
    return weights - eta * gradient + (2 * eta / n) ** 0.5 * noise
    # END SOLUTION

# %% [markdown] tags=["hint"]
# Noise that is standard normal has variance 1. By what must you multiply it?

# %% [markdown] tags=["expected"]
# Without noise it is a step of gradient descent. The check also lets your step walk, and looks at
# how far it spreads.

# %%
check.exercise_2(langevin)

# %% [markdown]
# ## A real table
#
# One curve is an anecdote. The standard benchmark for regression takes a table, splits it at random
# many times, and reports mean and standard error over the splits. The splits share rows, so they
# tell less than as many fresh tables would: the errors below are the corrected ones of Nadeau and
# Bengio, for 20 splits 1.8 times as large as the usual ones. Here the table is the diabetes
# data: 442 patients, ten measurements each, and how far the disease went within a year. What has to
# be chosen, the width of the prior, is chosen for each method by a validation part of the training
# rows. The splits are shared between the workers. First a small live run:

# %% tags=["aside"]
live = pool.run(regression.run, regression.SETTINGS["ci"], spnb.Layout(sample=2))[0]
print(regression.describe(live))

# %% [markdown]
# Two splits say nothing, and some lines say so themselves: look at their errors. Here is the record
# of 20 splits, which took `python -m spnb recipe regression --scale laptop --ranks 2`.
#
# **Predict:** by how much does the best Bayesian network beat the plain one in RMSE? And what will
# a linear model do, for comparison?

# %% tags=["aside"]
table = recorded("regression")
figure = regression.draw(table)
figures.footnote(figure, table["provenance"])
figures.show(figure, alt="Test error and log-likelihood gained by method. " + "; ".join(
    f"{name}: RMSE {s['rmse']:.1f} ± {s['rmse_error']:.1f}, {s['gained']:+.3f} ± "
    f"{s['gained_error']:.3f} nats" for name, s in table["scores"].items()) + ".")

# %% [markdown]
# **Explain.** Nobody wins. The linear model, NUTS and SG-MCMC have the best log-likelihoods, and
# each of the three lies about one standard error above the plain network: 20 splits of 442 patients
# cannot tell them from it. All others are closer to it still. (NUTS is a single chain of 50 steps
# here, after 50 to adapt.) An ensemble gains nothing at all, because its members find the same
# valley. Nothing in this table speaks for a network, plain or Bayesian, over a linear formula. A
# comparison without a linear model, or with the usual standard errors, would have sold you
# something: by those NUTS is almost two of them ahead.

# %% [markdown]
# ## Real images, and what it all costs
#
# Last, images: handwritten digits. The networks learn 0 to 7 from 400 images. Eights and nines they
# never see: with those we test whether they notice *strangers*.
#
# This time we also count. Each method is trained once in this process alone and once by two
# workers. How much faster a step becomes, over two, is its **parallel efficiency**. The results
# must be equal, whatever the time.
#
# Which layout? A method that trains with several samples shares them between the workers. *Point*,
# *SWAG* and *Laplace* train with one: they have nothing to share but rows, and train data-parallel.
# All of them can *predict* with shared samples.
#
# All have the same prior. Its width, six times 1/√n, was chosen by eye: a narrower one makes all of
# them more modest.

# %%
digits = datasets.digits()
pictures = torch.cat([digits.train_x, digits.test_x])
labels = torch.cat([digits.train_y, digits.test_y])
pixels = datasets.Scaling.of(pictures[labels < 8][:400])
known, classes = pixels.apply(pictures[labels < 8]).double(), labels[labels < 8]
strange, learn = pixels.apply(pictures[labels >= 8]).double(), (known[:400], classes[:400])
test_x, test_y = known[400:], classes[400:]
print(f"{len(learn[0])} images to learn from, {len(test_x)} to test, {len(strange)} strangers")

torch.manual_seed(SEED)
sorter = spnb.BayesianModel(mlp([64, 128, 8]).double(), spnb.priors.fan_in(6.0), "categorical")
usual = {"batch_size": 50, "learning_rate": 0.01, "schedule": "cosine",
         "epochs": scale.pick(ci=8, laptop=60, node=60), "seed": SEED}
entries = {
    "point": (spnb.Point(sorter), {}),
    "ensemble": (spnb.Ensemble(sorter, 8), {}),
    "MC dropout": (spnb.MCDropout(sorter, 0.2), {"num_samples": 8}),
    "mean field": (spnb.MeanField(sorter, 0.05), {"num_samples": 8}),
    "low rank": (spnb.LowRank(sorter, 4, 0.05), {"num_samples": 8}),
    "SWAG": (spnb.SWAG(sorter, iterates=10), still),
    "Laplace, last layer": (spnb.Laplace(sorter, "full", "last"), {}),
    "SG-MCMC": (spnb.SGMCMC(sorter, chains=8, cycles=2, keep=4), still | {"learning_rate": 0.2}),
}

# %% [markdown]
# **Predict:** which methods send nothing while they train? Which will be most efficient on two
# workers? And which is cheapest to *predict* with?
#
# ### Exercise 3 · difficulty 1/5 · 5 minutes
# All nine predict in the same way. `logits` are those of the samples, `[S, N, classes]`. What does
# the *model average* believe, `[N, classes]`?

# %% tags=["exercise"]
def model_average(logits):
    # BEGIN SOLUTION
    # STUB: return ...
    return logits.softmax(-1).mean(0)
    # END SOLUTION

# %% [markdown] tags=["hint"]
# First what each sample believes, then the average over the samples. The order matters.

# %% [markdown] tags=["expected"]
# Each row adds up to 1. If one sample is sure of class 0 and the other of class 1, the average is
# one half each, however sure they are.

# %%
check.exercise_3(model_average)

# %%
def train_it(posterior, data, **options):
    """Fit a posterior on both workers, along the axis that it has."""
    one = posterior.draws_in_training == 1
    layout = spnb.Layout(data=2) if one else spnb.Layout(sample=2)
    return pool.run(spnb.fit, posterior, data, layout=layout, **options)[0]


def step(fitted):
    """Seconds of a step, the median."""
    return statistics.median(record.seconds for record in fitted.history.steps)


def timed(function, *arguments, **options):
    """The result, and the seconds it took."""
    begin = clock.perf_counter()
    result = function(*arguments, **options)
    return result, clock.perf_counter() - begin


# %%
seen, costs = {}, {}
for name, (posterior, options) in entries.items():
    serial, seconds = timed(spnb.fit, posterior, learn, **usual | options)
    shared = train_it(posterior, learn, **usual | options)
    trained = shared.posterior
    count = min(KEPT, trained.num_draws or KEPT)
    everything = torch.cat([test_x, strange])
    draws, ahead = timed(spnb.predict, trained, everything, num_samples=count)
    gone = (spnb.predict(serial.posterior, everything, num_samples=count) - draws).abs().max()
    assert gone < 1e-8, f"{name}: the layouts differ by {gone}"
    seen[name] = draws
    costs[name] = {"training (s)": seconds, "efficiency": step(serial) / step(shared) / 2,
                   "sent (kB a step)": shared.history.bytes_per_step / 1e3,
                   "prediction (ms)": 1e3 * ahead,
                   "kept numbers": sum(v.numel() for v in trained.state_dict().values())}

# %%
noise, split = sorter.likelihood, len(test_x)


def judge(draws):
    """All scores of some draws, [S, known and strange images, classes]."""
    found = spnb.scores.classification(draws[:, :split], test_y, noise)
    for short, doubt in {"AUROC entropy": spnb.scores.predictive_entropy,
                         "AUROC mutual": spnb.scores.mutual_information}.items():
        found[short] = spnb.scores.auroc(doubt(draws[:, :split], noise),
                                         doubt(draws[:, split:], noise))
    return found


results = {name: judge(draws) | costs[name] for name, draws in seen.items()}
columns = ["accuracy", "nll", "ece", "AUROC entropy", "AUROC mutual", *costs["point"]]
print(f"{'':<20}" + "".join(f"{column:>17}" for column in columns))
for name, row in results.items():
    print(f"{name:<20}" + "".join(f"{row[column]:>17.4g}" for column in columns))

# %% [markdown]
# **Explain.** First the costs.
#
# - *Sent:* members and chains never meet while they train, so the ensemble and SG-MCMC send
#   nothing. The others add up gradients once a step, one number for each they train.
# - *Efficiency:* in general those that send nothing are the most efficient, and those that share
#   rows the least: half a batch of so small a network is over before the sum has begun. A network
#   whose step takes 100 ms has no such trouble (notebooks 02 to 05).
# - *Prediction:* the point needs one pass, an ensemble one for each member, all others one for
#   each sample.
# - *Kept:* SWAG keeps its iterates, Laplace a covariance, and SG-MCMC every place.
#
# Then the scores. The plain network is hard to beat here: it, the ensemble, dropout and SWAG are in
# front by the NLL. Those that try to be the *posterior*, mean field, low rank, Laplace and SG-MCMC,
# are behind. They are too modest. These images are clean, nearly every label is right, and a
# posterior at temperature 1 does not know that. Notebook 12 shows what people do about it. As
# detectors of strangers all are about equal, if one looks at the entropy. And NUTS? One draw would
# look at all images up to a hundred times and more, for 9,352 weights. It is for small problems.
#
# ## The board
#
# Ten columns are too many to read. The board shows one at a time, and on the left how far the
# method you choose may be trusted: how often it is right, by how sure it is. (On the dashed line it
# would be calibrated.) The slider takes fewer samples: S = 1 is one draw of each.
#
# **Predict – move – explain.**
#
# 1. Judge by NLL, then by ECE. Is the winner a Bayesian method?
# 2. Judge by the AUROC of the mutual information. Why is the point at exactly 0.5?
# 3. Take S down to 1, then up. Which methods need many samples, which are done with four?
# 4. Judge by the numbers kept. What do SWAG, Laplace and SG-MCMC pay with?

# %%
def score(name):
    """One of the scores, of draws."""
    return lambda draws: judge(draws)[name]


judged = {name: Judged(draws, {what: cost for what, cost in costs[name].items()
                               if what != "efficiency"}) for name, draws in seen.items()}
comparison_board(judged, {
    "NLL": Score("NLL (nats)", score("nll")), "ECE": Score("ECE", score("ece")),
    "accuracy": Score("accuracy", score("accuracy"), best="high"),
    "entropy": Score("AUROC of the entropy", score("AUROC entropy"), best="high"),
    "mutual": Score("AUROC of the mutual information", score("AUROC mutual"), best="high"),
}, samples=KEPT, draw=lambda ax, draws: draw_reliability(ax, draws[:, :split], test_y, noise))

# %% [markdown]
# ## A method of your own
#
# What makes a method? Three functions. `prepare` computes what all samples of a step share. `draw`
# makes weights from sample numbers. `divergence` is what is known of the KL to the prior. Training,
# objectives, layouts, prediction, scores: all of it follows.
#
# Here is a method that the library does not have: **one width for all weights**. Its KL has a
# closed form; the cross-entropy to the model's prior comes from the base, the entropy of P normals
# of width σ is P log σ, up to a constant.
#
# ### Exercise 4 · difficulty 4/5 · 15 minutes
# Write `draw`. A row for each sample number: `loc` plus `width` times standard normal noise. The
# noise belongs to the sample: `key.fold(s).generator()` is a generator of its own for number s,
# the same on whichever worker.

# %% tags=["exercise"]
class OneWidth(spnb.Posterior):
    """A normal for each weight, all equally wide."""

    def __init__(self, model):
        super().__init__(model)
        self.loc = nn.Parameter(model.flatten(model.drawn))
        self.log_width = nn.Parameter(self.loc.new_tensor(-3.0))

    def prepare(self):
        return self.loc, self.log_width.exp()

    def draw(self, sample_ids, key, prepared=None):
        loc, width = prepared or self.prepare()
        # BEGIN SOLUTION
        # STUB: return ...  # [number of samples, number of weights]
        noise = [torch.randn(len(loc), generator=key.fold(s).generator(), dtype=loc.dtype)
                 for s in sample_ids]
        return loc + width * torch.stack(noise)
        # END SOLUTION

    def divergence(self, prepared, part=0, parts=1):
        loc, width = prepared
        cross = self.cross_entropy.known(loc, (width**2).expand_as(loc), part, parts)
        return cross - len(loc) * width.log() / parts

# %% [markdown] tags=["hint"]
# `torch.randn(len(loc), generator=..., dtype=loc.dtype)` for each s in `sample_ids`, and
# `torch.stack`. Torch's own generator, without a key, would give each worker other samples.

# %% [markdown] tags=["expected"]
# The check asks for some samples in several orders, and trains your method in two layouts.

# %%
check.exercise_4(OneWidth, pool)

# %% [markdown]
# That is all a method needs. In the library each of them is one file in `spnb/maths/posteriors/`,
# and a line that imports it. (To save and load yours, add it to their list first:
# `spnb.maths.posteriors.METHODS["OneWidth"] = OneWidth`. A file never makes a class that is not
# there.)

# %%
pool.close()

# %% [markdown]
# ## You can now
#
# - say of each of nine methods what a sample of it is, and what it cannot say
# - write the heart of two of them: a dropout mask and a Langevin step
# - measure how far each is from NUTS, the reference
# - compare methods fairly: same prior, same data, errors over many splits, costs beside scores
# - say which methods have to communicate while they train, and how well each is parallel
# - add a method of your own, which then runs in every layout
#
# **Next:** notebook 11 goes to more machines, and lets them break.
#
# ## References
#
# - B. Lakshminarayanan, A. Pritzel, C. Blundell: *Simple and Scalable Predictive Uncertainty
#   Estimation using Deep Ensembles*, [arXiv 1612.01474](https://arxiv.org/abs/1612.01474), 2017.
# - Y. Gal, Z. Ghahramani: *Dropout as a Bayesian Approximation*,
#   [arXiv 1506.02142](https://arxiv.org/abs/1506.02142), 2016.
# - C. Blundell et al.: *Weight Uncertainty in Neural Networks*,
#   [arXiv 1505.05424](https://arxiv.org/abs/1505.05424), 2015: mean field.
# - V. M.-H. Ong, D. J. Nott, M. S. Smith: *Gaussian Variational Approximation with a Factor
#   Covariance Structure*, [arXiv 1701.03208](https://arxiv.org/abs/1701.03208), 2018: low rank.
# - W. J. Maddox et al.: *A Simple Baseline for Bayesian Uncertainty in Deep Learning*,
#   [arXiv 1902.02476](https://arxiv.org/abs/1902.02476), 2019: SWAG.
# - D. J. C. MacKay: *A Practical Bayesian Framework for Backpropagation Networks*, Neural
#   Computation 4, 1992; E. Daxberger et al.: *Laplace Redux*,
#   [arXiv 2106.14806](https://arxiv.org/abs/2106.14806), 2021.
# - M. Welling, Y. W. Teh: *Bayesian Learning via Stochastic Gradient Langevin Dynamics*, ICML 2011;
#   R. Zhang et al.: *Cyclical Stochastic Gradient MCMC for Bayesian Deep Learning*,
#   [arXiv 1902.03932](https://arxiv.org/abs/1902.03932), 2020.
# - M. D. Hoffman, A. Gelman: *The No-U-Turn Sampler*,
#   [arXiv 1111.4246](https://arxiv.org/abs/1111.4246), 2011.
# - P. Izmailov et al.: *What Are Bayesian Neural Network Posteriors Really Like?*,
#   [arXiv 2104.14421](https://arxiv.org/abs/2104.14421), 2021: methods against long HMC chains.
# - J. M. Hernández-Lobato, R. P. Adams: *Probabilistic Backpropagation*,
#   [arXiv 1502.05336](https://arxiv.org/abs/1502.05336), 2015: the benchmark.
# - C. Nadeau, Y. Bengio: *Inference for the Generalization Error*, Machine Learning 52, 2003:
#   standard errors over splits that overlap.
# - B. Efron et al.: *Least Angle Regression*, Annals of Statistics 32, 2004 (the diabetes data);
#   E. Alpaydin, C. Kaynak: *Optical Recognition of Handwritten Digits*, UCI, 1998 (the digits);
#   C. D. Keeling, T. P. Whorf: *Atmospheric CO2 concentrations derived from flask air samples at
#   sites in the SIO network*, Carbon Dioxide Information Analysis Center, 2004.
