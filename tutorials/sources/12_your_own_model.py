# %% [markdown]
# # Your own model
#
# You have a network and a table, or images. You want predictions that know what they do not know.
# This notebook goes all the way once, with a network that the library has never seen: choose a
# prior, a layout and a method; get calibrated predictions, a figure for your report and a file with
# the posterior. Then replace two cells, and it is yours.
#
# The second half is for the day when it does not work. Five things go wrong again and again. You
# will cause each of them on purpose, see its symptoms, and mend it.
#
# **You will be able to**
#
# - make any `torch.nn.Module` Bayesian, with a prior for each kind of parameter
# - choose a layout by prediction and a method by validation
# - turn probabilities into decisions, with "I do not know" as one of them
# - save a posterior, and load it where no code is executed from the file
# - recognise five common troubles by their symptoms, and mend them
#
# It takes about 60 minutes to work through. Run from top to bottom without stopping, the notebook
# needs about half a minute at the `ci` scale on two cores and about a minute at the `laptop` scale
# (set `SPNB_SCALE` before JupyterLab starts to choose).

# %%
import tempfile
from pathlib import Path

import pyro.distributions as dist
import torch
from torch import nn

import spnb
from spnb.teach import datasets, figures, scale
from spnb.teach.checks import nb12 as check
from spnb.teach.explore.troubles import trouble_explorer
from spnb.teach.passport import provenance
from spnb.teach.report import report
from spnb.teach.symptoms import symptoms

SEED = 0
EPOCHS = scale.pick(ci=24, laptop=100, node=200)
torch.set_num_threads(1)  # the workers want the cores
pool = spnb.WorkerPool(2)
print(f"scale: {scale.name()}, {EPOCHS} epochs\n{provenance(SEED)}")

# %% [markdown]
# ## Your data
#
# **The first cell to replace.** All that is needed are two tensors: inputs `[N, ...]`, and targets
# `[N]` for classes or `[N, 1]` for numbers. From a CSV file it is
# `torch.tensor(pandas.read_csv("mine.csv").to_numpy())`.
#
# Here it is a table that comes with scikit-learn: 569 tumours of the breast, 30 measurements of
# cell nuclei each, and what the tumour was: 0 is malignant, 1 benign. We keep three parts: to
# train, to *choose* (validation) and to *judge* (test). The scaling comes from the training part
# alone.

# %%
from sklearn.datasets import load_breast_cancer

x, y = map(torch.as_tensor, load_breast_cancer(return_X_y=True))
order = torch.randperm(len(x), generator=torch.Generator().manual_seed(SEED))
parts = [(x[rows].float(), y[rows]) for rows in order.split([300, 100, 169])]
scaling = datasets.Scaling.of(parts[0][0], over=(0,))
train, valid, test = ((scaling.apply(inputs), targets) for inputs, targets in parts)
for name, (inputs, targets) in {"train": train, "validation": valid, "test": test}.items():
    print(f"{name:<11}{len(inputs):>4} tumours, {(targets == 0).double().mean():.0%} malignant")

# %% [markdown]
# ## Your network
#
# **The second cell to replace.** Any `torch.nn.Module` will do, under two conditions. Each row is
# computed by itself, so no BatchNorm: LayerNorm and GroupNorm are fine. And no dropout inside the
# network: its random numbers would belong to no sample. (To have dropout *as the method*, use
# `spnb.MCDropout`.) If you forget, a sentence says so.

# %%
class Mine(nn.Module):
    """A residual network for tables."""

    def __init__(self, inputs=30, width=32, outputs=2):
        super().__init__()
        self.enter, self.norm = nn.Linear(inputs, width), nn.LayerNorm(width)
        self.mix, self.leave = nn.Linear(width, width), nn.Linear(width, outputs)

    def forward(self, x):
        h = torch.relu(self.enter(x))
        return self.leave(h + torch.relu(self.mix(self.norm(h))))


try:
    spnb.BayesianModel(nn.Sequential(nn.Linear(30, 8), nn.BatchNorm1d(8), nn.Linear(8, 2)))
except ValueError as error:
    print(error)

# %% [markdown]
# ## Your prior
#
# What do you believe of a weight before you have seen data? If nothing better is known: a unit with
# n inputs adds up n products, and its sum should be of size 1. So a weight is expected to be of
# size 1/√n. The scale and shift of a LayerNorm are few and well determined; they may stay plain
# numbers, which are learned as usual.
#
# A prior is a function of a parameter's name and value, and returns a distribution, or `None` for
# "stay a number".
#
# ### Exercise 1 · difficulty 2/5 · 8 minutes
# Write it. Names that begin with `norm` stay numbers. A bias (one dimension) gets Normal(0, 1).
# All other weights get Normal(0, 1/√n). `parameter[0]` holds the inputs of one unit, whether the
# layer is linear, `[outputs, inputs]`, or a convolution, `[outputs, channels, height, width]`.

# %% tags=["exercise"]
def my_prior(name, parameter):
    # BEGIN SOLUTION
    # STUB: return ...
    if name.startswith("norm"):
        return None
    if parameter.dim() == 1:
        return dist.Normal(0, 1)
    return dist.Normal(0, parameter[0].numel() ** -0.5)
    # END SOLUTION

# %% [markdown] tags=["hint"]
# `parameter.dim()` is 1 for a bias, `parameter[0].numel()` the number n of inputs.

# %% [markdown] tags=["expected"]
# For `my_prior("enter.weight", torch.zeros(32, 30))` a normal of width 0.183; for `norm.weight`,
# `None`.

# %%
check.exercise_1(my_prior)

# %%
rule = spnb.priors.fan_in(1.0)  # the library's, which does the same for weights


def prior(name, parameter):
    """The prior of this notebook."""
    return None if name.startswith("norm") else rule(name, parameter)


def make_model(prior=prior, **options):
    """A fresh model; the same initial values each time."""
    torch.manual_seed(SEED)
    return spnb.BayesianModel(Mine(**options), prior, likelihood="categorical")


for site in make_model().sites:
    what = "a number" if site.prior is None else f"Normal(0, {site.prior.stddev.max():.2f})"
    print(f"{site.name:<13}{site.size:>5}  {what}")

# %% [markdown]
# ## Your layout
#
# Two workers are running. Shall they share the samples or the rows? `spnb.plan` times a few passes
# of *your* network, and predicts a step in every layout. On a node with 8 GPUs it is the same call.
#
# **Predict:** which one will it put first for so small a network?

# %%
plan = spnb.plan(spnb.MeanField(make_model()), train, num_samples=4, batch_size=50, pool=pool)
print(plan)
layout = plan.best.layout

# %% [markdown]
# ## Train and report
#
# One call trains. Another makes the figure for your report, with its caption in words: how training
# went, whether the probabilities can be trusted, and whether it pays to listen to the doubt. We are
# still choosing, so it gets the validation part. The test part waits for the end.
#
# **Predict:** if a doctor looks again at the half of the tumours of which the network is least
# sure, how many errors are left in the other half?

# %%
usual = {"num_samples": 4, "batch_size": 50, "epochs": EPOCHS, "learning_rate": 0.01,
         "schedule": "cosine", "seed": SEED}
fitted = pool.run(spnb.fit, spnb.MeanField(make_model()), train, layout=layout, **usual)[0]
figure, words = report(fitted, valid, seed=SEED)
figures.show(figure, alt=words)
print(words)

# %% [markdown]
# **Explain.** On the left, the distance of the two curves is what the prior costs. In the middle,
# the dots shall lie on the dashed line: of all answers given with 80 %, 80 % are right. Dots above
# it are modest, dots below it too sure. Few rows are in the middle bins, so their dots jump. On the
# right, the curve shall rise from left to right: the surer, the better.
#
# ## Your method
#
# Mean field is a good start, not a law. Each method is one line. Again the validation part judges.
#
# **Predict:** which is the best here? Will the best be far from the others?

# %%
one = {name: value for name, value in usual.items() if name != "num_samples"}
still = {"schedule": "constant"}
model = make_model()
candidates = {
    "plain network": (spnb.Point(model), spnb.Layout(data=2), one),
    "mean field": (spnb.MeanField(model), layout, usual),
    "low rank": (spnb.LowRank(model, rank=4), layout, usual),
    "MC dropout": (spnb.MCDropout(model, rate=0.1), layout, usual),
    "ensemble": (spnb.Ensemble(model, size=8), spnb.Layout(sample=2), one),
    "Laplace, last layer": (spnb.Laplace(model, "full", "last"), spnb.Layout(data=2), one),
    "SG-MCMC": (spnb.SGMCMC(model, chains=8, cycles=2), spnb.Layout(sample=2),
                one | still | {"learning_rate": 0.1}),
}
trained = {}
print(f"{'validation':<20}{'accuracy':>10}{'NLL':>8}{'ECE':>8}")
for name, (posterior, where, options) in candidates.items():
    trained[name] = pool.run(spnb.fit, posterior, train, layout=where, **options)[0]
    found = spnb.score(trained[name].posterior, valid, seed=SEED)
    print(f"{name:<20}{found['accuracy']:>10.3f}{found['nll']:>8.3f}{found['ece']:>8.3f}")

# %% [markdown]
# **Explain.** One hundred tumours are few. With one error more or less, the accuracy moves by one
# percent. Differences of that size are no differences. If several methods are even, take the one
# that is cheapest to train, to store and to predict with. Often that is the plain network with a
# last-layer Laplace on top.
#
# ## Decide
#
# A probability is not yet a decision. To send a malignant tumour home costs, say, 20 units. To
# operate on a benign one costs 4. To ask a second doctor costs 1, whatever it is. The right action
# is the one with the least *expected* cost.
#
# ### Exercise 2 · difficulty 3/5 · 8 minutes
# Write it. `probabilities` are those of the samples, `[S, N, classes]`; `costs` is
# `[actions, classes]`, what an action costs if the truth is that class. Return the number of the
# best action for each row, `[N]`.

# %% tags=["exercise"]
def decide(probabilities, costs):
    # BEGIN SOLUTION
    # STUB: return ...
    expected = probabilities.mean(0) @ costs.T  # [N, actions]
    return expected.argmin(-1)
    # END SOLUTION

# %% [markdown] tags=["hint"]
# First the model average `[N, classes]`, then its product with the costs, `[N, actions]`.

# %% [markdown] tags=["expected"]
# If it is 50 % malignant, asking for 1 is cheaper than sending home for 0.5 · 20 = 10 and operating
# for 0.5 · 4 = 2.

# %%
check.exercise_2(decide)

# %%
ACTIONS = ("operate", "send home", "ask")
costs = torch.tensor([[0.0, 4.0], [20.0, 0.0], [1.0, 1.0]])  # of an action, by truth


def bill(run, data):
    """How often each action is taken, its cost a row, and that of naming the likelier class."""
    count = min(64, run.posterior.num_draws or 64)
    p = spnb.predict(run.posterior, data[0], seed=SEED, num_samples=count).softmax(-1).mean(0)
    action = (p @ costs.T).argmin(-1)
    each, simple = (costs[what, data[1]].mean().item() for what in (action, p.argmax(-1)))
    return action.bincount(minlength=3).tolist(), each, simple


print(f"{'validation':<20}" + "".join(f"{action:>11}" for action in ACTIONS)
      + f"{'cost a tumour':>15}{'likelier class':>16}")
bills = {name: bill(run, valid) for name, run in trained.items()}
for name, (actions, paid, simple) in bills.items():
    print(f"{name:<20}" + "".join(f"{n:>11}" for n in actions) + f"{paid:>15.3f}{simple:>16.3f}")

# %% [markdown]
# **Explain.** The last column is what the same network costs if one simply takes the likelier
# class. To ask is worth it with *any* network whose probabilities can be trusted. Look at both ends
# of the column *ask*. Who is too modest asks more often than needed, and pays for it each time. Who
# is too sure asks too rarely, and each malignant tumour sent home costs 20. Calibration is what you
# pay for, in both directions. (With 100 tumours the order hangs on one or two of them.)
#
# ## Report and keep
#
# Now choose: the method with the smallest bill. And only now the test part comes in, once, for the
# report.
#
# Then keep the posterior. It goes into a file of numbers and words. Nothing in it is code, so
# nobody can hide code in it. Whoever loads it brings the network. To prove it, a *fresh process*
# loads it, and says the same to all digits.

# %%
chosen = min(bills, key=lambda name: bills[name][1])
actions, paid, simple = bill(trained[chosen], test)
print(f"chosen: {chosen}. On the test part it costs {paid:.3f} a tumour, {simple:.3f} without "
      f"asking; of {len(test[0])} tumours the second doctor sees {actions[2]}.")
figure, words = report(trained[chosen], test, seed=SEED)
figures.show(figure, alt=words)

posterior = trained[chosen].posterior
folder = tempfile.TemporaryDirectory()  # the last cell removes it
file = spnb.save(posterior, Path(folder.name) / "mine.safetensors")


def say(path, make, inputs):
    """Load a posterior and predict with it."""
    torch.set_num_threads(1)
    return spnb.predict(spnb.load(path, make()), inputs, seed=SEED)


with spnb.WorkerPool(1) as fresh:  # a process that has seen nothing of this
    theirs = fresh.run(say, file, make_model, test[0])[0]
assert torch.equal(theirs, spnb.predict(posterior, test[0], seed=SEED))
print(f"{file.name}: {file.stat().st_size / 1e3:.0f} kB; loaded elsewhere, it says the same")

# %% [markdown]
# ## Images, too
#
# Nothing changes for images but the two cells. Here is a small convolutional network, and 8 × 8
# digits.

# %% tags=["aside"]
digits = datasets.digits(flat=False)
torch.manual_seed(SEED)
net = nn.Sequential(
    nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
    nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(32 * 4 * 4, 10))
seer = spnb.BayesianModel(net, spnb.priors.fan_in(3.0), likelihood="categorical")
seeing = pool.run(
    spnb.fit, spnb.MeanField(seer), digits.train, layout=spnb.Layout(sample=2), num_samples=2,
    epochs=scale.pick(ci=4, laptop=20, node=40), learning_rate=0.005, schedule="cosine")[0]
figure, words = report(seeing, digits.test, num_samples=32)
figures.show(figure, alt=words)
print(words)

# %% [markdown]
# ## When it does not work
#
# A variational network has more ways to fail than a plain one. But a few numbers tell them apart.
# `spnb.teach.symptoms.symptoms` reads them off a run:
#
# - **data**: the data term at the end, nats a row. It should be well below *chance*, what you get
#   by always naming the shares of the classes.
# - **first KL a weight**: how far the start is from the prior. A few nats are usual.
# - **last KL a row**: what the prior costs in the end. It stands in the loss beside the data term.
# - **like prior**: the share of the weights that ended as wide as their prior. They know nothing.
# - **wider**: the share that is wider than the prior. Data never make a weight wider.
#
# First the healthy run.

# %%
shares = train[1].bincount() / len(train[1])
chance = torch.special.entr(shares).sum().item()
print(f"chance: {chance:.3f} nats a row")
troubles = {}


def attempt(say, rows=300, width=32, prior=prior, init_scale=0.02, **changes):
    """Train a mean-field posterior with some changes, and print its symptoms."""
    some = train[0][:rows], train[1][:rows]
    posterior = spnb.MeanField(make_model(prior, width=width), init_scale=init_scale)
    run = pool.run(spnb.fit, posterior, some, layout=spnb.Layout(sample=2), **usual | changes)[0]
    found = symptoms(run, some, test)
    print(f"{say}: {found}")
    return found


healthy = attempt("healthy")

# %% [markdown]
# ### 1. Under-fitting
#
# **On purpose:** a learning rate that is too small. **Predict** which number gives it away.

# %%
troubles["under-fitting"] = (
    attempt("learning rate 0.0001", learning_rate=1e-4, epochs=40), healthy)

# %% [markdown]
# **Symptoms.** The data term is near chance, and the weights are as narrow as they started: nothing
# has moved. **Mend it** by a larger learning rate, or more epochs: scales have a longer way to go
# than means. That is the healthy run.
#
# ### 2. The scale of the initial σ
#
# **On purpose:** every weight starts with a standard deviation of 1. For most, that is five times
# the prior's.

# %%
troubles["initial σ"] = attempt("initial σ = 1", init_scale=1.0), healthy

# %% [markdown]
# **Symptoms.** Most weights are *wider than their prior*, and that cannot come from data. The noise
# was so loud in training that the means could not hear the data. **Mend it** by starting narrow:
# 0.02 is a good habit, well below the prior. Too narrow is the smaller evil: the widths then have a
# long way to grow, so look whether the KL still falls.
#
# ### 3. Posterior collapse
#
# **On purpose:** a wide network (256 units, 75,000 weights) and 40 tumours. **Predict:** what will
# the posterior do with weights of which the data say nothing?

# %%
long = {"rows": 40, "epochs": scale.pick(ci=150, laptop=300, node=600), "learning_rate": 0.02}
troubles["collapse"] = (attempt("256 units, 40 tumours", width=256, **long),
                        attempt("  8 units, 40 tumours", width=8, **long))
_ = attempt("256 units, T = 0.1   ", width=256, objective=spnb.ELBO(temperature=0.1), **long)

# %% [markdown]
# **Symptoms.** Nearly all weights went back to their prior, and the data term went to chance: the
# network does not listen any more. Each weight pays a price for leaving the prior, and 75,000
# prices are more than 40 tumours can tell. Note that *like prior* alone is no illness. A healthy
# network returns what it does not need. It is one if the data term goes with it. **Mend it** by a
# smaller network, more data, or a lower temperature: the price times T.
#
# ### 4. An exploding KL
#
# **On purpose:** a prior that is much too narrow, Normal(0, 0.01) for all weights.

# %%
def tight(name, parameter):
    """Far too narrow."""
    return None if name.startswith("norm") else dist.Normal(0, 0.01)


troubles["exploding KL"] = (
    attempt("prior of width 0.01", prior=tight, epochs=max(40, EPOCHS)), healthy)

# %% [markdown]
# **Symptoms.** The first KL is dozens of nats *a weight*. In the loss that makes hundreds a row,
# where the data can give at most chance, a fraction of one. So the prior is all that training sees:
# it squeezes the weights to zero. **Mend it** by a prior in the units of the network, such as 1/√n.
# The same happens to a network that was trained before, on inputs of another scale: look at its
# weights before you choose the prior.
#
# ### 5. Too modest at temperature 1
#
# **On purpose:** Bayes' rule. At a temperature of 1 deep networks are often too modest, and T < 1
# scores better. Here T weighs the KL, which tempers the likelihood alone; papers on *cold
# posteriors* temper the prior as well. Why it helps is still debated: priors over weights that
# nobody believes in, labels that are cleaner than the likelihood thinks, and mean field itself all
# play a part. So treat T as what it is, something to choose by *validation*.
#
# **Predict:** what will the curve of the NLL over T look like?

# %%
heats = (0.01, 0.03, 0.1, 0.3, 1.0)
seen, nll = {}, {"validation": [], "test": []}
for t in heats:
    run = pool.run(spnb.fit, spnb.MeanField(make_model()), train, layout=spnb.Layout(sample=2),
                   objective=spnb.ELBO(temperature=t), **usual)[0]
    seen[t] = symptoms(run, train, test)
    nll["validation"].append(spnb.score(run.posterior, valid, seed=SEED)["nll"])
    nll["test"].append(seen[t].scores["nll"])
best = heats[min(range(len(heats)), key=lambda i: nll["validation"][i])]
troubles["too modest"] = seen[1.0], seen[best]

fig, ax = figures.new(6.0, 3.0)
for i, (part, values) in enumerate(nll.items()):
    ax.plot(heats, values, **figures.look(i), label=part)
ax.set_xscale("log")
ax.set(xlabel="temperature T", ylabel="NLL (nats)", ylim=(0, None))
ax.legend()
figures.footnote(fig, f"mean field, {EPOCHS} epochs, seed {SEED}; chosen: T = {best}")
figures.show(fig, alt=f"NLL over temperature. Validation is best at T = {best}; on the test part "
             + ", ".join(f"{v:.3f} at T = {t}" for t, v in zip(heats, nll["test"], strict=True)))

# %% [markdown]
# **Explain.** T = 1 is too modest, T near 0 a plain network again and too sure; the best lies
# between. Its place depends on the network and the data, and with a hundred tumours it is only
# roughly known. What you then have is no longer the posterior of Bayes' rule. Say so in the report.
#
# ### Exercise 3 · difficulty 2/5 · 8 minutes
# Which weights have learned something? The KL of each weight tells. Write it for normals: the
# posterior has mean `loc` and width `scale`, the prior mean 0 and width `prior`; all are `[P]`.
#
# $$ \operatorname{KL}_i = \log \frac{p_i}{s_i} + \frac{s_i^2 + m_i^2}{2 p_i^2} - \frac{1}{2} $$

# %% tags=["exercise"]
def kl_of_each(loc, scale, prior):
    # BEGIN SOLUTION
    # STUB: return ...
    return (prior / scale).log() + (scale**2 + loc**2) / (2 * prior**2) - 0.5
    # END SOLUTION

# %% [markdown] tags=["hint"]
# The formula, letter by letter: m is `loc`, s is `scale`, p is `prior`.

# %% [markdown] tags=["expected"]
# Zero where the posterior is the prior, and never negative.

# %%
check.exercise_3(kl_of_each)

# %% [markdown]
# ### Exercise 4 · difficulty 3/5 · 10 minutes
# Be the doctor. `s` has the symptoms `s.data`, `s.kl_first`, `s.kl_last`, `s.like_prior` and
# `s.wider`. Return `"prior"`, `"initial"`, `"collapse"`, `"under-fitting"` or `"healthy"`. Take 10
# nats a weight as too much for a first KL, half of the weights as "most", and half of `chance` as
# a poor data term. (What is far wider than its prior is far from it, too: ask for that first.)

# %% tags=["exercise"]
def diagnose(s, chance):
    # BEGIN SOLUTION
    # STUB: return ...
    if s.wider > 0.5:
        return "initial"
    if s.kl_first > 10:
        return "prior"
    if s.data < chance / 2:
        return "healthy"
    return "collapse" if s.like_prior > 0.5 else "under-fitting"
    # END SOLUTION

# %% [markdown] tags=["hint"]
# Two of the troubles show at once. Whether anything is wrong at all, the data term says. And of the
# two that are left, one has given its weights back.

# %% [markdown] tags=["expected"]
# The healthy run is healthy, although some of its weights may be like the prior.

# %%
check.exercise_4(diagnose, troubles, chance)

# %% [markdown]
# ## The ward
#
# All runs of above, with their courses and the widths of their weights.
#
# **Predict – move – explain.** Before you press *mended*: which of the three pictures will change
# most? For which trouble do the curves look healthy, and only the scores in the line below tell?

# %%
trouble_explorer(troubles)

# %%
pool.close()
folder.cleanup()

# %% [markdown]
# ## You can now
#
# - make any `torch.nn.Module` Bayesian, with a prior for each kind of parameter
# - choose a layout by prediction and a method by validation
# - turn probabilities into decisions, with "I do not know" as one of them
# - save a posterior, and load it where no code is executed from the file
# - recognise five common troubles by their symptoms, and mend them
#
# **Next:** your own data. Replace two cells.
#
# ## References
#
# - W. H. Wolberg, O. L. Mangasarian, W. N. Street: *Breast Cancer Wisconsin (Diagnostic)*, UCI,
#   1995 (the table); E. Alpaydin, C. Kaynak: *Optical Recognition of Handwritten Digits*, UCI,
#   1998.
# - C. Guo et al.: *On Calibration of Modern Neural Networks*,
#   [arXiv 1706.04599](https://arxiv.org/abs/1706.04599), 2017: the reliability diagram.
# - F. Wenzel et al.: *How Good is the Bayes Posterior in Deep Neural Networks Really?*,
#   [arXiv 2002.02405](https://arxiv.org/abs/2002.02405), 2020: cold posteriors.
# - L. Aitchison: *A Statistical Theory of Cold Posteriors in Deep Neural Networks*,
#   [arXiv 2008.05912](https://arxiv.org/abs/2008.05912), 2021: clean labels as a cause.
# - B. Coker et al.: *Wide Mean-Field Bayesian Neural Networks Ignore the Data*,
#   [arXiv 2202.11670](https://arxiv.org/abs/2202.11670), 2022: why wide networks collapse.
# - C. Chow: *On Optimum Recognition Error and Reject Tradeoff*, IEEE Transactions on Information
#   Theory 16, 1970: decisions with "I do not know".
# - [safetensors](https://huggingface.co/docs/safetensors): files without code.
