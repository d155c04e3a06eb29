# %% [markdown]
# # Start here: two live processes behind your notebook
#
# A neural network can say not only *what* it thinks, but *how sure* it is, if each of its weights
# is a distribution instead of a number. The price: every training step needs several random draws
# of all the weights, so it takes several times the work. This course teaches how to share that
# work between processes and GPUs, from the first line of code to a large model on many nodes.
#
# **You will be able to**
#
# - read your machine's hardware passport, and say what a *rank* is
# - start a worker pool and run a function from a cell on all ranks
# - do a first all-reduce: a sum, and an average, over ranks
# - tell when a value is copied to the ranks and when it is shared
# - find the cause when one rank fails, and go on with the same pool
# - train a small Bayesian net on two ranks and see what it is unsure about
#
# It takes about 45 minutes to work through, and no GPU. Run from top to bottom without stopping,
# the notebook needs about a minute at the `ci` scale on two cores and less than five minutes at
# the `laptop` scale. The next cell says which scale is in force: set `SPNB_SCALE` to `ci`,
# `laptop` or `node` before JupyterLab starts to choose another.

# %%
import os
import sys
import time
import traceback

import torch
import torch.distributed as dist

import spnb
from spnb.teach import datasets, figures, scale
from spnb.teach.checks import nb00 as check
from spnb.teach.doctor import examine
from spnb.teach.explore.digits import digit_explorer, rotate
from spnb.teach.explore.failure_lab import failure_lab
from spnb.teach.explore.panel import worker_panel
from spnb.teach.explore.tiles import draw_tiles
from spnb.teach.passport import passport, provenance

SEED = 0
EPOCHS = scale.pick(ci=15, laptop=40, node=100)
DRAWS = scale.pick(ci=32, laptop=64, node=256)

print(f"scale: {scale.name()}, {EPOCHS} epochs, {DRAWS} draws of the weights to look at")
print(provenance(SEED))

# %% [markdown]
# ## Is this machine fit?
#
# Before a journey one sees the doctor. It looks at versions, cores, memory, devices and disks,
# starts two processes for a moment, has them add up some numbers, and checks that two processes
# compute the same gradient as one. That takes some seconds.
#
# A line with ✓ needs no reading. A line with ! works, and an arrow below it says what would be
# better. A line with ✗ has to be mended first. In a terminal the same is `python -m spnb.doctor`.

# %%
report = examine(ranks=2)
report

# %% [markdown]
# ## The whole course in one picture
#
# One training step of a Bayesian net is a *board*. Down the board: S random draws of all the
# weights, the **samples**. Across it: the B rows of the mini-batch. Each square asks one question:
# *what does this draw of the weights say about this row?* To do a step, all squares must be done.
#
# So there are two ways to cut the board between two workers, and a third that does both.
#
# **Predict** before you run the cell: if every worker sees *all* rows, what does it not see?

# %%
fig, axes = figures.new(9.2, 2.9, columns=3)
cuts = {
    "share the samples": spnb.Layout(sample=2),
    "share the batch": spnb.Layout(data=2),
    "share both": spnb.Layout(sample=2, data=2),
}
for ax, (title, layout) in zip(axes, cuts.items(), strict=True):
    draw_tiles(ax, layout, num_samples=4, num_rows=8)
    ax.set_title(title)
figures.show(
    fig,
    alt="Three boards of 4 samples by 8 rows. Sharing the samples cuts the first "
    "board into an upper half for rank 0 and a lower half for rank 1. Sharing the batch "
    "cuts the second into a left and a right half. Sharing both cuts the third into "
    "quarters, for ranks 0 to 3.",
)

# %% [markdown]
# **Explain.** On the left each worker sees every row, but only half of the draws: that is
# *sampling parallelism*, the method this course is about. In the middle each worker has all the
# draws, but only half of the rows: that is *data parallelism*, which you may know as DDP. On the
# right are both at once: a *hybrid* layout. Notebook 03 builds the first from nothing, notebook 04
# races it against the second, notebook 05 combines them.
#
# ## What your machine has
#
# The **hardware passport** lists what this notebook may really use. That can be less than the
# machine has: a container or a cluster job is often allowed a few of its cores only.

# %%
card = passport(ranks=2)
card

# %% [markdown]
# Read three lines of it. *cores* is what two workers will share. *device* says where they
# compute: on the CPU, or on one GPU each if there are two. *backend* is the library through which
# they talk: `gloo` between CPUs, `nccl` between GPUs. Nothing else in this course depends on
# which it is.
#
# ## A pool of two workers
#
# A notebook is one Python process. To compute on two devices at once, you need two more. The next
# cell starts them. They stay alive until you close them, so only the first call has to wait.

# %%
pool = spnb.WorkerPool(2)
worker_panel(pool)

# %% [markdown]
# Press **Refresh** when the cell is done, and you see the workers change from *starting* to
# *idle*. **Stop** ends both, **Restart** starts two new ones, in case you ever get lost. While a
# cell computes, the table follows by itself: look back at it when we train.
#
# ## What is a rank?
#
# `pool.run(function)` calls the function on every worker *at the same time*. All run the same code.
# What tells one from the other is a number, its **rank**. The number of workers is the
# **world size**. (The names are those of `torch.distributed`, which is what runs underneath.)
#
# **Predict:** the function below is defined in this notebook. The workers are other processes. Will
# they know it? How many different process numbers will you see, this notebook's included?


# %%
def introduce():
    print("only rank 0's prints are shown here, to keep cells short")
    return {"rank": dist.get_rank(), "world size": dist.get_world_size(), "process": os.getpid()}


for answer in pool.run(introduce):
    print(answer)
print("this notebook: process", os.getpid())

# %% [markdown]
# **Explain.** Three processes: the notebook and two workers. The function travelled to the workers
# as it is. `pool.run` returns a *list*: the result of rank 0, then the result of rank 1. What the
# other ranks printed is not lost: `pool.output(1)` has it.
#
# ## A first all-reduce
#
# Each worker has its own memory. Rank 0 cannot look into rank 1's variables. If they are to know
# something in common, they must *send* it. The most useful way to do so is the **all-reduce**:
#
# | before | rank 0 has `[1]` | rank 1 has `[2]` |
# |---|---|---|
# | after `dist.all_reduce` | `[3]` | `[3]` |
#
# Everyone brings a tensor, everyone leaves with the sum. The tensor is changed *in place*.
#
# **Predict:** two ranks bring `rank + 1`. What is the sum? What would it be with four ranks?


# %%
def total():
    value = torch.tensor([dist.get_rank() + 1.0])
    dist.all_reduce(value)
    return value.item()


start = time.perf_counter()
print("each rank leaves with:", pool.run(total))
print(f"the whole call took {1000 * (time.perf_counter() - start):.0f} ms: the workers were there")

# %% [markdown]
# That sum is the only thing that parallel training adds to ordinary training. Each worker computes
# the gradient of its part of the board, one all-reduce joins them, and each goes on with the whole
# gradient. You will write that in notebook 03. Here comes its smallest version.
#
# ### Exercise 1 · difficulty 1/5 · 5 minutes
#
# Two ranks have measured the same quantity. Each should leave with the **mean** of all ranks'
# values, whatever the world size. Complete the function.


# %% tags=["exercise"]
def average(value):
    """The mean of all ranks' values; `value` is a tensor, and another one on each rank."""
    # BEGIN SOLUTION
    # STUB: mean = ...
    mean = value.clone()
    dist.all_reduce(mean)
    mean = mean / dist.get_world_size()
    # END SOLUTION
    return mean


# %% [markdown] tags=["hint"]
# An all-reduce gives the sum. How many terms does that sum have? `dist.get_world_size()` knows.
# And it changes its tensor in place: reduce a `clone()`, so that the caller keeps its own.

# %% [markdown] tags=["expected"]
# If rank 0 brings `1.0` and rank 1 brings `3.0`, both leave with `2.0`.

# %%
check.exercise_1(average, pool)

# %% [markdown]
# ## Copies, unless you share
#
# What you hand to `pool.run` is **copied** to each rank. That is on purpose: if all ranks wrote
# into one and the same model, each would overwrite the others' weights.
#
# But a large data set that everybody only *reads* need not exist three times. Put it through
# `spnb.share` and all processes look at the same memory. Then a write by one *is* seen by all.
#
# **Predict:** both ranks write into the tensor. What does the notebook see afterwards in each case?


# %%
def scribble(tensor):
    tensor[dist.get_rank()] = 10.0 + dist.get_rank()


copied = torch.zeros(2)
pool.run(scribble, copied)
print("an ordinary tensor, afterwards:", copied.tolist())

shared = spnb.share(torch.zeros(2))
pool.run(scribble, shared)
print("a shared tensor, afterwards:   ", shared.tolist())

# %% [markdown]
# **Explain.** The first tensor stayed as it was: the workers wrote into their copies. The second
# was changed by both ranks, since there is only one. So the rule is short: *share data, never
# models*.
#
# ### Exercise 2 · difficulty 1/5 · 3 minutes
#
# For each of these, say `"copy"` or `"share"`: a data set of images that the ranks read; a network
# that each rank trains on its own; a tensor in which rank r leaves its result in row r.

# %% tags=["exercise"]
# BEGIN SOLUTION
# STUB: choice = {"images": ..., "network": ..., "results": ...}  # "copy" or "share"
choice = {"images": "share", "network": "copy", "results": "share"}
# END SOLUTION

# %% [markdown] tags=["hint"]
# Who writes? And if somebody does: should the others see it?

# %% [markdown] tags=["expected"]
# One of the three must be copied.

# %%
check.exercise_2(choice)

# %% [markdown]
# ## When one rank fails
#
# Sooner or later one rank will stumble. That used to be the worst part of parallel programming:
# rank 1 fails, rank 0 waits for it in an all-reduce, and nothing ever happens again. Let us provoke
# exactly that.
#
# **Predict:** rank 1 divides by zero while rank 0 already waits. Does this cell end? With which
# error?


# %%
def stumble():
    value = torch.ones(1)
    if dist.get_rank() == 1:
        shares = 0
        value = value * (1 / shares)  # only rank 1 comes here
    dist.all_reduce(value)  # rank 0 waits here for rank 1
    return value.item()


start = time.perf_counter()
try:
    pool.run(stumble)
except ZeroDivisionError as error:
    traceback.print_exception(error, limit=0, file=sys.stdout)
print(f"known after {time.perf_counter() - start:.1f} s")
print("and the pool goes on working:", pool.run(total))

# %% [markdown]
# **Explain.** You got rank 1's own error, with the line of the cell in which it happened, not a
# time-out of rank 0. The waiting rank was woken up. The same workers served the next call. (The
# `try` is here only so that the notebook runs on. Leave it out in your own work.)
#
# ## The stop button
#
# The ■ in the toolbar stops *all* ranks, wherever they are, and leaves the pool alive. Try it: set
# `SECONDS` to 60, run the cell, and press ■. You will see a `KeyboardInterrupt`. Then run the cell
# with 1 again: the workers are still there.

# %%
SECONDS = 1


def wait_together(seconds):
    start = time.perf_counter()
    for _ in range(int(10 * seconds)):
        time.sleep(0.1)
        dist.barrier()
    return round(time.perf_counter() - start, 1)


print("seconds waited on each rank:", pool.run(wait_together, SECONDS))

# %% [markdown]
# ## The failure lab
#
# Now let ranks fail as you like. Nothing here is played: the ranks really work, and one of them
# really ends. (If the pool has been closed, press *Restart* in the worker panel first.)
#
# **Predict – move – explain.** A rank *raises* an exception: which processes are new afterwards? A
# rank *is killed*: which are new then, and how long does the next run take to answer? Last, *you
# press ■*. Why is no process new?

# %%
failure_lab(pool)

# %% [markdown]
# ### Exercise 3 · difficulty 2/5 · 5 minutes
#
# Some ranks hold more than others. Rank r holds a tensor of its own length. Every rank should leave
# with the mean over *all entries of all ranks*. Careful: the mean of the means is something else.


# %% tags=["exercise"]
def mean_of_all(mine):
    """The mean over the entries of all ranks' tensors, which differ in length."""
    # BEGIN SOLUTION
    # STUB: mean = ...
    sums = torch.tensor([mine.sum(), float(len(mine))])
    dist.all_reduce(sums)
    mean = sums[0] / sums[1]
    # END SOLUTION
    return mean


# %% [markdown] tags=["hint"]
# A mean is a sum divided by a count. Both of them can be summed over ranks, and both fit into one
# tensor, so that one all-reduce is enough.

# %% [markdown] tags=["expected"]
# If rank 0 has `[1, 2, 3]` and rank 1 has `[10]`, the mean is `4.0`. The mean of the means would be
# `6.0`.

# %%
check.exercise_3(mean_of_all, pool)

# %% [markdown]
# ## A first Bayesian net, trained on both ranks
#
# The data: small pictures of handwritten digits that come with scikit-learn. The net: 64 pixels,
# 32 hidden units, 10 classes. What makes it Bayesian is two lines. `BayesianModel` puts a *prior*
# over the weights: what we believe before we see data. `MeanField` is the *posterior*: a mean and a
# standard deviation for each weight, which training adjusts. Notebook 01 takes its time over both.

# %%
digits = datasets.digits()
print(digits)
print(digits.sentence)

torch.manual_seed(SEED)
net = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.Tanh(), torch.nn.Linear(32, 10))
model = spnb.BayesianModel(net, prior=spnb.priors.fan_in(3.0), likelihood="categorical")
posterior = spnb.MeanField(model, init_scale=0.05)
print(f"{posterior.loc.numel():,} weights, each with a mean and a standard deviation")

# %% [markdown]
# Training is one call. `pool.run(spnb.fit, ...)` says: *every* rank runs `spnb.fit`, and
# `layout=spnb.Layout(sample=2)` says that they share the samples. Here S = 8, so four each.
#
# **Predict:** both ranks return a trained posterior. By how much will the two differ?

# %%
trained = pool.run(
    spnb.fit,
    posterior,
    digits.train,
    layout=spnb.Layout(sample=2),
    num_samples=8,
    epochs=EPOCHS,
    batch_size=64,
    learning_rate=0.02,
    schedule="cosine",
    seed=SEED,
)
fitted = trained[0]
gap = (trained[0].posterior.loc - trained[1].posterior.loc).abs().max().item()
print(f"largest difference between the ranks' posterior means: {gap}")

# %% [markdown]
# **Explain.** None: after each all-reduce both held the same gradient and took the same step.
#
# Did it learn? Here is the loss of each step, and the score of the *model average*, that is of
# the mean prediction over many draws of the weights.

# %%
scores = pool.run(
    spnb.score, fitted.posterior, digits.test, num_samples=DRAWS, layout=spnb.Layout(sample=2)
)[0]
loss = fitted.history.loss
fig, ax = figures.new(7.2, 2.8)
ax.plot(loss, color=figures.BLUE, lw=1.2)
ax.set(xlabel="step", ylabel="loss in nats", title="Training the first Bayesian net")
figures.footnote(
    fig, f"S = 8 on 2 ranks, seed {SEED}; test accuracy {scores['accuracy']:.3f} from {DRAWS} draws"
)
figures.show(
    fig, alt=f"The loss falls over {len(loss)} steps from {loss[0]:.2f} to {loss[-1]:.2f} nats."
)
print({name: round(value, 3) for name, value in scores.items()})

# %% [markdown]
# ## What is it unsure about?
#
# A digit that lies on its side was never in the training data. A net should notice. So let us
# turn some test digits and ask every draw of the weights for its opinion. All draws are made now,
# on both ranks; moving a slider later only looks them up.

# %%
angles = list(range(0, 181, 15))
upright = digits.test_x[:12].view(-1, 8, 8)
turned = torch.stack([rotate(upright, angle) for angle in angles])
draws = pool.run(
    spnb.predict,
    fitted.posterior,
    turned.flatten(2).flatten(0, 1),
    num_samples=DRAWS,
    layout=spnb.Layout(sample=2),
)[0]
probabilities = draws.softmax(-1).view(DRAWS, len(angles), len(upright), 10)
digit_explorer(turned, digits.test_y[:12], angles, probabilities)

# %% [markdown]
# **Predict, then move.** Leave the digit and turn it slowly. When do the dots of the draws spread
# apart? Is the net ever wrong *and* unanimous? Which digits survive a half turn, and why those?
#
# **Explain.** Each dot is one draw of the weights. Upright, nearly all agree. Turned, they begin
# to contradict each other: that disagreement is the **epistemic** uncertainty, what the net does
# not know for lack of data. You will also find turned digits that are wrong with confidence. A
# mean-field posterior helps; it is no guarantee, and later notebooks measure how far it can be
# trusted.
#
# ### Exercise 4 · difficulty 3/5 · 8 minutes
#
# Put a number on it. The **entropy** of class probabilities, $-\sum_c p_c \log p_c$, is 0 for a
# sure answer and largest for a shrug. Take the entropy of the *mean* over the draws, and subtract
# the mean of the entropies of the *single* draws. What is left is disagreement: the epistemic
# part. The stored `probabilities` have the shape `[draws, angles, digits, classes]`; return the
# mean over the digits, one number for each angle. `entropy` is there for you.


# %% tags=["exercise"]
def entropy(p):
    """Entropy in nats over the last dimension."""
    return torch.special.entr(p).sum(-1)


def epistemic_by_angle(probabilities):
    """Entropy of the mean less mean entropy of the draws, averaged over digits: ``[angles]``."""
    # BEGIN SOLUTION
    # STUB: epistemic = ...
    total = entropy(probabilities.mean(0))  # [angles, digits]
    of_single_draws = entropy(probabilities).mean(0)
    epistemic = (total - of_single_draws).mean(-1)
    # END SOLUTION
    return epistemic


# %% [markdown] tags=["hint"]
# The draws are dimension 0. Average over them *before* the entropy for the first term, *after* it
# for the second. The digits come last.

# %% [markdown] tags=["expected"]
# One positive number for each angle, smallest where the digits stand upright.

# %%
check.exercise_4(epistemic_by_angle, probabilities)

# %% [markdown]
# ## Close the pool
#
# Idle workers hold memory, and on a shared machine perhaps a GPU. Close the pool when you are done.
# If you forget: the workers end by themselves when the notebook's kernel does.

# %%
pool.close()
pool

# %% [markdown]
# ## You can now
#
# - read your machine's hardware passport, and say what a *rank* is
# - start a worker pool and run a function from a cell on all ranks
# - do a first all-reduce: a sum, and an average, over ranks
# - tell when a value is copied to the ranks and when it is shared
# - find the cause when one rank fails, and go on with the same pool
# - train a small Bayesian net on two ranks and see what it is unsure about
#
# **Next:** notebook 01 asks what it means that a weight *is* a distribution.
#
# ## References
#
# - Asena Karolin Özdemir, Lars H. Heyen, Arvid Weyrauch, Achim Streit, Markus Götz, Charlotte
#   Debus: *Sampling Parallelism for Fast and Efficient Bayesian Learning*,
#   [arXiv 2604.04736](https://arxiv.org/abs/2604.04736), 2026.
# - C. Blundell et al.: *Weight Uncertainty in Neural Networks*,
#   [arXiv 1505.05424](https://arxiv.org/abs/1505.05424), 2015.
# - PyTorch: [torch.distributed](https://docs.pytorch.org/docs/stable/distributed.html), for ranks,
#   groups and collectives.
# - E. Alpaydin, C. Kaynak: *Optical Recognition of Handwritten Digits*, UCI Machine Learning
#   Repository, 1998 (the data).
