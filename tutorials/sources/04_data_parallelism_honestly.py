# %% [markdown]
# # Data parallelism, honestly
#
# Almost everybody who trains on several GPUs shares the *batch*: each GPU takes some of the rows.
# PyTorch does it for you, under the name `DistributedDataParallel`, DDP for short. It works for
# Bayesian nets, too. So why share samples at all? A course that likes its own method must race it
# against the other one, on fair terms, and say who wins. You will find that the answer depends on
# three numbers, and that you can predict it.
#
# **You will be able to**
#
# - train a Bayesian net with PyTorch's own DDP, and prove that it computes the data layout
# - say what each rank must draw, evaluate, send and update, in each layout
# - race layouts at constant work, and at work that grows with the ranks, and compute efficiencies
# - read a per-rank timeline: what a step is made of, and who waits for whom
# - choose a layout for given samples, rows and ranks
#
# It takes about 70 minutes to work through. Run from top to bottom without stopping, the notebook
# needs about a minute at the `ci` scale on two cores and less than five minutes at the `laptop`
# scale (set `SPNB_SCALE` before JupyterLab starts to choose). It measures time, so close what else
# keeps your machine busy.

# %%
import itertools
import os

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

import spnb
from spnb.maths.networks import ViT, mlp
from spnb.parallel.devices import usable_cores
from spnb.run.optimizer import adam
from spnb.teach import datasets, figures, scale
from spnb.teach.checks import nb04 as check
from spnb.teach.explore.race import draw_bars, race_board, undisturbed, verdict
from spnb.teach.explore.timeline import describe, draw_timeline, milliseconds, timeline_explorer
from spnb.teach.passport import provenance
from spnb.teach.racing import Contender, duration, least_disturbed_step, limit, race, strangers

torch.set_num_threads(1)  # small nets gain nothing from more, and the workers want the cores
SEED = 0
SECONDS = scale.pick(ci=0.6, laptop=10, node=30)  # of each race
REPEATS = scale.pick(ci=60, laptop=300, node=1000)  # gradients, to see how noisy they are

print(f"scale: {scale.name()}, {SECONDS} s a race, {REPEATS} gradients a noise")
print(provenance(SEED))

# %% [markdown]
# ## DDP in ten lines
#
# DDP wants a module that computes a *loss* from some rows. It calls the module on every rank, each
# with its own rows, and when you call `backward`, it **averages** the gradients over the ranks.
# That is all.
#
# For a Bayesian net the loss of some rows needs S draws of the weights. We write it the way that
# a user of plain PyTorch would: a loop over the samples, and autograd does the rest. The line with
# the `Key` is the one from notebook 03: sample s of this step has the same noise whoever draws it.
# And the KL is divided by N, the number of *all* training images, not of those in the batch.
#
# **Predict:** in notebook 03 each rank added 1/W of the KL. Here every rank adds all of it. Why is
# that right?


# %%
class RankLoss(torch.nn.Module):
    """What one rank computes under DDP: the loss of its own rows, over all S samples."""

    def __init__(self, posterior, num_samples, num_data):
        super().__init__()
        self.posterior, self.num_samples, self.num_data = posterior, num_samples, num_data

    def forward(self, x, y, step):
        posterior, model, data_term = self.posterior, self.posterior.model, 0.0
        prepared, key = posterior.prepare(), spnb.Key(SEED).fold("weights", step)
        for s in range(self.num_samples):  # all of them, on every rank
            w = posterior.draw([s], key, prepared)
            predictions = model.predict(w, posterior.point, x)  # [1, rows, 10]
            data_term = data_term - model.likelihood.log_likelihood(predictions, y).mean()
        return data_term / self.num_samples + posterior.divergence(prepared) / self.num_data


def ddp_gradient(posterior, x, y, num_samples, num_data):
    rank, world_size = dist.get_rank(), dist.get_world_size()
    model = DistributedDataParallel(RankLoss(posterior, num_samples, num_data))
    mine = x.tensor_split(world_size)[rank], y.tensor_split(world_size)[rank]
    model(*mine, step=0).backward()  # and averages
    return {name: parameter.grad for name, parameter in posterior.named_parameters()}


# %% [markdown]
# Because DDP averages: W times all of the KL, divided by W, is the KL once. (In notebook 03 the
# ranks' parts were *summed*.)
#
# Now the proof, in double precision. Serial, spnb's data layout and DDP compute the gradient of the
# same batch, with the same draws. First 128 rows, then one row less. (`spnb.gradients` takes its
# batch for all the data there are, and would divide the KL by its rows. So we weigh the KL, by the
# temperature, with rows / N. What is left is KL / N, as in a step of training.)
#
# **Predict:** 127 rows are 64 and 63. Who stumbles?

# %%
pool = spnb.WorkerPool(2, idle_timeout=300)  # workers that idle for five minutes end
digits = datasets.digits()
print(digits, digits.sentence, sep="\n")

torch.manual_seed(SEED)
exact = spnb.MeanField(spnb.BayesianModel(mlp((64, 32, 10)).double()), init_scale=0.05)
x, y = digits.train_x.double(), digits.train_y
N = len(x)  # all training images


def apart(found, expected):
    """The largest difference of two gradients, relative to the largest entry."""
    gaps = [(found[name] - expected[name]).abs().max() for name in expected]
    return (max(gaps) / max(g.abs().max() for g in expected.values())).item()


# %%
off = {}
for rows in (128, 127):
    batch = (x[:rows], y[:rows])
    how = {"num_samples": 8, "objective": spnb.ELBO(temperature=rows / N)}
    serial = spnb.gradients(exact, batch, **how)
    shared = pool.run(spnb.gradients, exact, batch, layout=spnb.Layout(data=2), **how)[0]
    ddp = pool.run(ddp_gradient, exact, *batch, 8, N)[0]
    off[rows] = apart(shared, serial), apart(ddp, shared)
    print(f"{rows} rows: data layout off serial by {off[rows][0]:.1e}, ", end="")
    print(f"DDP off the data layout by {off[rows][1]:.1e}")
assert max(off[128]) <= 1e-12  # the same gradient, to rounding

# %% [markdown]
# **Explain.** With 128 rows all three agree, to rounding: DDP *is* the data layout, in another
# program. With 127 rows DDP is off, and it is no rounding. It forms the mean of two means, and the
# 63 rows of rank 1 count as much as the 64 of rank 0. No error, no warning. PyTorch's own
# `DistributedSampler` goes round it: it repeats a row, or drops one, so that all parts are equal.
#
# ### Exercise 1 · difficulty 3/5 · 10 minutes
#
# Mend it. Write the loss of one rank such that DDP's **average** over the ranks is the loss of the
# step, L = (mean over all samples and rows) + KL / N, however many rows each rank has. `losses` is
# `[S, b]`: this rank's own b rows.


# %% tags=["exercise"]
def ddp_loss(losses, kl, num_samples, num_data, batch_size, world_size):
    """The loss of one rank; averaged over all ranks, it must be L."""
    # BEGIN SOLUTION
    # STUB: loss = ...
    loss = world_size * losses.sum() / (num_samples * batch_size) + kl / num_data
    # END SOLUTION
    return loss


# %% [markdown] tags=["hint"]
# L is a sum over ranks, of `losses.sum() / (num_samples * batch_size)`, plus the KL. DDP divides
# the sum over ranks by W. So multiply by W what each rank has only a part of, and leave alone what
# every rank has as a whole.

# %% [markdown] tags=["expected"]
# S = 1, no KL. Rank 0 has the losses `[[1., 2., 3.]]` and returns 3; rank 1 has `[[6.]]` and
# returns 3. Their average is 3, the mean of all four.

# %%
check.exercise_1(ddp_loss)

# %% [markdown]
# ## What each rank must do
#
# Before the race, the arithmetic. The *tile* of a rank says which samples and rows it has. From it
# follows everything else: how many draws of the weights it makes, how often a row goes through the
# net, what it sends, what it updates. The last column is the best that one can hope for: the step
# cannot be faster than its largest tile.
#
# **Predict:** which numbers of "share the batch" do *not* fall when there are more ranks?

# %%
torch.manual_seed(SEED)
nets = {
    "MLP": mlp((64, 256, 256, 10)),
    "ViT": ViT(image_size=8, patch=2, channels=1, dim=32, depth=2, heads=2, hidden=64),
}
heavy = {name: spnb.MeanField(spnb.BayesianModel(net)) for name, net in nets.items()}
P = len(heavy["MLP"].loc)
cuts = {"one rank": spnb.Layout()}
for ranks in (2, 8):
    cuts[f"{ranks} share samples"] = spnb.Layout(sample=ranks)
    cuts[f"{ranks} share batch"] = spnb.Layout(data=ranks)

print(f"largest tile, MLP with P = {P:,} weights, 256 rows; millions (M) a step")
print(f"{'':24}{'draws':>6}{'noise':>8}{'rows':>6}{'evaluations':>12}{'sent':>9}{'updated':>9}{'limit':>8}")
for samples in (16, 3):
    for name, layout in cuts.items():
        if layout.sample > samples:
            continue  # a rank would have nothing to do
        tile = layout.tile(0, samples, 256)  # rank 0 has the largest
        draws, rows = len(tile.samples), len(tile.rows)
        sent = 4 * 2 * P / 1e6 if layout.size > 1 else 0  # means and scales, four bytes each
        print(f"S = {samples:<3}{name:17}{draws:6}{draws * P / 1e6:7.2f}M{rows:6}{draws * rows:12}"
              f"{sent:7.2f}MB{2 * P / 1e6:8.2f}M{limit(layout, samples, 256):7.2f}×")

# %% [markdown]
# **Explain.** Both layouts send the same bytes and make the same update. With S = 16 both halve
# the evaluations on two ranks. But if the batch is shared, *every* rank makes all S draws: the
# noise column does not fall. On the other side, S = 3 does not divide by two, and the limit says
# so. These two effects pull in opposite directions. Who wins is a matter of measuring.
#
# ## Constant work: strong scaling
#
# **Strong scaling** asks: the *same* step, twice the ranks; how much faster? Four take part: one
# rank that does everything; two ranks that share the samples, or the batch, with `spnb`; and
# PyTorch's DDP with the loss from above. The last two are the same layout in two programs. They
# take turns in rounds, so that a passing load meets all. Bars are medians, whiskers span the middle
# half of the steps.
#
# **Predict** the order for the MLP with S = 16. Does S = 64 change it? And the ViT?


# %%
def ddp_training(posterior, data, num_samples):
    """Training with DDP on this rank's rows: returns the function that takes one step."""
    rank, world_size = dist.get_rank(), dist.get_world_size()
    x, y = (part.tensor_split(world_size)[rank] for part in data)
    loss = RankLoss(posterior, num_samples, len(data[0]))  # in a race the batch is all the data
    model = DistributedDataParallel(loss, gradient_as_bucket_view=True, forward_sync_buffers=False)
    optimizer, steps = adam(posterior, learning_rate=1e-3), itertools.count()  # as spnb.fit has it

    def step():
        optimizer.zero_grad()
        model(x, y, next(steps)).backward()
        optimizer.step()

    return step


sharing = {
    "share samples": spnb.Layout(sample=2),
    "share batch": spnb.Layout(data=2),
    "DDP": ddp_training,
}
ways = {"one rank": None, **sharing}

# %%
images = {"MLP": digits.train_x, "ViT": datasets.digits(flat=False).train_x}
batches = {"MLP": 256, "ViT": 64}


def contenders(samples, rows):
    """All ways that are possible: two ranks cannot share one sample."""
    possible = {name: way for name, way in ways.items() if samples > 1 or name != "share samples"}
    return {name: Contender(way, samples, rows) for name, way in possible.items()}


strong = {}
for net, samples in (("MLP", 16), ("MLP", 64), ("ViT", 8)):
    data, field = (images[net], digits.train_y), contenders(samples, batches[net])
    turn = 1 if samples > 16 else 2  # timed steps; long ones need no more
    strong[net, samples] = race(pool, field, heavy[net], data, steps=turn, seconds=SECONDS)
print(f"during the races, {os.getloadavg()[0]:.1f} processes wanted one of {usable_cores()} cores")


# %%
def show_races(races, title, legend, tiles=None):
    """A panel for each race, and the verdicts below; `title` makes its title from a race's key."""
    fig, panels = figures.new(9.6, 3.2, columns=len(races))
    told = []
    for ax, (key, result) in zip(panels, races.items(), strict=True):
        spreads = {name: result.spread(name) if name in result.rounds else None for name in ways}
        draw_bars(ax, {name.replace(" ", "\n"): spread for name, spread in spreads.items()})
        ax.set_title(title(key))
        times = ", ".join(f"{name} {spread[1]:.1f}" for name, spread in spreads.items() if spread)
        told.append(f"{title(key)}: {times}")
        for name, ms in tiles[key].items() if tiles else ():
            ax.plot([*ways].index(name), ms, "D", mfc="white", mec="black", mew=1.5, ms=8, zorder=5)
            told[-1] += f", tile of {name} alone {ms:.1f}"
    panels[0].set_ylabel("ms a step")
    counts = [len(result.rounds["one rank"]) for result in races.values()]
    rounds = f"{min(counts)} to {max(counts)} rounds"
    figures.footnote(fig, f"medians and middle halves, {legend}; {rounds}; seed {SEED}")
    figures.show(fig, alt=f"Median milliseconds a step, {legend}. {'; '.join(told)}.")
    for key, result in races.items():
        print(f"{title(key)}: {verdict(result)}")
        print(f"{'the fastest steps':>20}: {undisturbed(result)}")


print("speed against one rank, with the middle half of the rounds:")
show_races(strong, lambda key: f"{key[0]}, S = {key[1]}", "MLP with 256 rows, ViT with 64")

# %% [markdown]
# **Explain.** These are *your* machine's numbers. The limit of all of them is 2. What is missing
# to it went into sending, into waiting, into what is not shared, and into two processes on one
# memory. If other programs are at work, two ranks suffer more than one: each step waits for the
# rank that was held up. The fastest steps show what the machine can do when it is left alone.
#
# If "share batch" and "DDP" differ, it is not the layout, which is the same. DDP's loss was left to
# autograd, while `spnb` writes the chain rule out by hand and reuses its memory. And on one host
# `spnb` adds gradients up in memory that the ranks share, while DDP sends them through a socket.
#
# One thing DDP is famous for does not help it here. While the backward pass still works on the
# first layers, DDP already sends the gradient of the last ones. In a Bayesian net a gradient is
# complete only when the *last sample* has come back, so there is little left to hide behind.
#
# ## Your prediction against your machine
#
# Now you. Set a question and a prediction, then press **Measure**. The board already holds the
# naive prediction: two ranks, twice as fast. Try S = 2 and S = 3. Try the ViT, where the net is
# small and its passes are slow. When you hit the spread three times in a row, you may call yourself
# an expert for this machine.

# %%
workloads = {
    f"{net}, {rows} rows": (heavy[net], (images[net][:rows].clone(), digits.train_y[:rows].clone()))
    for net, rows in batches.items()
}
board = race_board(pool, workloads, sharing, num_samples=8)
board.set(measure=True)
board

# %% [markdown]
# ## Growing work: weak scaling
#
# **Weak scaling** asks: twice the ranks, twice the *work*; does the step keep its time? There are
# two ways to have more work. S grows with the ranks: each rank keeps its 8 samples, and all see the
# same 256 rows. Or the batch grows: each rank keeps its 256 rows, and draws the same 8 samples.
#
# Look at what that means for one rank: *the same in both cases*, 8 draws on 256 rows. So expect a
# tie. One more contender tells you what your machine can do at best. The **strangers** are two
# processes that do one rank's work each, and never speak to each other.
#
# **Predict:** how much slower is a step if a stranger works next door?

# %%
S, B, W = 8, 256, pool.size
growth = {
    "one rank": Contender(None, S, B),
    "strangers": Contender(strangers, S, B),
    "more samples": Contender(spnb.Layout(sample=W), W * S, B),
    "more rows": Contender(spnb.Layout(data=W), S, W * B),
    "more rows, DDP": Contender(ddp_training, S, W * B),
}
weak = race(pool, growth, heavy["MLP"], (images["MLP"], digits.train_y), seconds=SECONDS)
efficiency = {name: weak.speed_up(name, "one rank") for name in growth if name != "one rank"}
print("efficiency: the time of one rank's step over the time of the larger step")
for name, (low, middle, high) in efficiency.items():
    print(f"{name:16}{weak.spread(name)[1]:7.1f} ms{middle:8.2f} ({low:.2f} to {high:.2f})")

# %% [markdown]
# What the strangers lose is lost to memory and cores: nobody can do better on this machine. What
# the others lose below that is sending, and waiting for each other.
#
# But a tie in *time* is not a tie in *value*. What do you get for the doubled work? A gradient is
# noisy for two reasons. The weights were drawn at random, and so were the rows. More samples
# average over the first, more rows over the second. Let us measure it, in the middle of a training:
# many gradients of the same posterior, each with fresh draws and fresh rows.
#
# And there is a third way, which is honest data parallelism as most people run it: each rank seeds
# its own generator. Then the two ranks have other rows *and other draws*.
#
# **Predict:** which of the three gives the least noise?

# %%
young = spnb.MeanField(
    spnb.BayesianModel(mlp((64, 32, 10)), prior=spnb.priors.fan_in(3.0)), init_scale=0.05
)
trained = spnb.fit(young, digits.train, epochs=6, learning_rate=0.02, seed=SEED).posterior
shuffle = torch.Generator().manual_seed(SEED)


def fresh(rows):
    return torch.randperm(len(digits.train_x), generator=shuffle)[:rows]


def gradient(rows, samples, step):
    batch = digits.train_x[rows], digits.train_y[rows]
    found = spnb.gradients(trained, batch, num_samples=samples, seed=SEED, step=step)
    return torch.cat(list(found.values()))


def own_draws(step):
    """What two ranks with their own rows and their own draws average to."""
    mine, yours = fresh(128).split(64)
    return (gradient(mine, 4, 2 * step) + gradient(yours, 4, 2 * step + 1)) / 2


# %%
makers = {
    "one\nrank": lambda step: gradient(fresh(64), 4, step),
    "more\nsamples": lambda step: gradient(fresh(64), 8, step),
    "more\nrows": lambda step: gradient(fresh(128), 4, step),
    "more rows,\nown draws": own_draws,
}
gradients = {name: torch.stack([make(k) for k in range(REPEATS)]) for name, make in makers.items()}
noise = {name: found.var(0).sum().sqrt().item() for name, found in gradients.items()}
less = {name: value / noise["one\nrank"] for name, value in noise.items()}

fig, (left, right) = figures.new(9.6, 3.4, columns=2)
draw_bars(left, {name.replace(" ", "\n", 1): v for name, v in efficiency.items()}, ".2f")
left.axhline(1, color="black", lw=1.2, linestyle="--", label="ideal: the step keeps its time")
left.set(title="What it costs", ylabel="weak-scaling efficiency", ylim=(0, 1.45))
draw_bars(right, less, ".2f")
right.axhline(0.5**0.5, color="black", lw=1.2, linestyle="--", label="half the variance: 1/√2")
right.set(title="What it buys", ylabel="gradient noise, one rank = 1", ylim=(0, 1.45))
for ax in (left, right):
    ax.legend(loc="upper left")
about = f"left: S = {S}, B = {B} a rank; right: S = 4, B = 64 a rank, {REPEATS} gradients"
figures.footnote(fig, f"{about}; seed {SEED}")
cost = ", ".join(f"{name} {value[1]:.2f}" for name, value in efficiency.items())
gain = ", ".join(f"{' '.join(name.split())} {value:.2f}" for name, value in less.items())
figures.show(fig, alt=f"Efficiencies: {cost}. Noise against one rank: {gain}.")

# %% [markdown]
# **Explain.** More samples and more rows each remove *one* source of noise, so neither reaches
# 1/√2 (but for the error of this measurement). Which of them is better depends on the posterior:
# train it for 1 or for 30 epochs instead of 6, run the two cells again, and see which source grows.
#
# Own draws halve the variance whatever its source. That is no luck but a rule: the mean of two
# independent gradients. So here is an honest point for data parallelism: a DDP program whose ranks
# draw *different* weights is right, too, and at the same price its gradient is quieter than that of
# spnb's data layout. What it gives up is that all layouts compute the same training: its result
# depends on how many ranks there are. A serial run could still follow it, if noise belonged to a
# sample *and* a block of rows: it would draw anew for each block. Programs that seed each rank by
# its number have no such run to be compared with, and a mistake like those of notebook 03 has a
# place to hide. `spnb` lets all rows of a step share their draws, and chose to be checkable.
#
# And do not forget that a larger batch is another training: with twice the rows there are half as
# many updates in an epoch, and the learning rate may have to follow. More samples change nothing
# but the noise.
#
# ### Exercise 2 · difficulty 2/5 · 5 minutes
#
# Compute both efficiencies. `alone` is the time of one rank's step; `strong` that of `world_size`
# ranks for the *same* work; `weak` that of `world_size` ranks for `world_size` times the work. 1 is
# ideal in both cases.


# %% tags=["exercise"]
def efficiencies(alone, strong, weak, world_size):
    """Strong-scaling efficiency, weak-scaling efficiency."""
    # BEGIN SOLUTION
    # STUB: of_strong, of_weak = ..., ...
    of_strong = alone / strong / world_size  # the speed-up per rank
    of_weak = alone / weak
    # END SOLUTION
    return of_strong, of_weak


# %% [markdown] tags=["hint"]
# Ideal strong scaling: `strong` is `alone / world_size`. Ideal weak scaling: `weak` is `alone`. In
# both cases the answer must be 1, and a slower step must make it smaller.

# %% [markdown] tags=["expected"]
# `efficiencies(100.0, 50.0, 125.0, 2)` is `(1.0, 0.8)`.

# %%
check.exercise_2(efficiencies)

# %% [markdown]
# ## A step under the microscope
#
# Where does the time go? `spnb` can write down what each rank does in a real step, and when. Below
# is one step of the MLP with S = 8: one row a rank, time from left to right. Of several steps you
# see the one that was disturbed least.
#
# **Predict** before you look: which blocks get shorter if the samples are shared, and which if the
# batch is shared? Which do not change at all?

# %%
mlp_name, vit_name = workloads
layouts = {name: way for name, way in ways.items() if name != "DDP"}
steps = {
    name: least_disturbed_step(pool, *workloads[mlp_name], layout, 8)
    for name, layout in layouts.items()
}

fig, panels = figures.new(9.6, 5.0, rows=3, sharex=True)
legend = {}
for ax, (name, step) in zip(panels, steps.items(), strict=True):
    draw_timeline(ax, step, longest=max(map(duration, steps.values())))
    ax.set(title=f"{name}: {duration(step):.1f} ms", xlabel="")
    legend |= dict(zip(*ax.get_legend_handles_labels()[::-1], strict=True))
panels[-1].set_xlabel("ms from the common start")
fig.legend(legend.values(), legend.keys(), loc="outside upper center", ncols=len(legend))
figures.footnote(fig, f"{mlp_name}, S = 8; of 7 steps each, the one disturbed least; seed {SEED}")
told = [f"{name}: {describe(step)}" for name, step in steps.items()]
figures.show(fig, alt=f"Timelines of one step. {' '.join(told)}")
print("\n\n".join(told))

# %% [markdown]
# **Explain.** Read it like this.
#
# - Narrow orange blocks, hatched `///`, are *drawing*. With shared samples a rank has 4 of them,
#   with a shared batch 8: every rank draws all samples. (Each row needs all weights, so half of a
#   draw is of no use.)
# - The passes are blue: plain is forward, hatched `\\\` is backward. With a shared batch they are
#   about half as wide, with shared samples half as many. Careful with the backward ones: at its end
#   each sample carries its gradient back into means and scales, P numbers each. That part knows
#   nothing of rows.
# - *Waiting* is not sending. The all-reduce of the rank that comes first lasts until the last one
#   has come. Only what is drawn as all-reduce is the message itself.
# - The update is the same everywhere: each rank updates all weights.
#
# Change S and see which blocks multiply. Look at the ViT, whose passes are long and whose draws are
# small. Take another *take*: how much does a single step vary?

# %%
known = {(mlp_name, name, 8): step for name, step in steps.items()}
explorer = timeline_explorer(pool, workloads, known=known)
explorer

# %% [markdown]
# ### Exercise 3 · difficulty 3/5 · 10 minutes
#
# Compute it yourself. `timeline` has one list of spans for each rank. A span has a `name`, a
# `start` and a `stop`, in seconds, on a clock that all ranks share. How many **milliseconds** does
# each rank wait in its all-reduce for the last one to come? There is one all-reduce in a step.


# %% tags=["exercise"]
def waiting(timeline):
    """Milliseconds that each rank waits, a list."""
    # BEGIN SOLUTION
    # STUB: waits = ...
    arrivals = [span.start for spans in timeline for span in spans if span.name == "all-reduce"]
    waits = [1000 * (max(arrivals) - arrival) for arrival in arrivals]
    # END SOLUTION
    return waits


# %% [markdown] tags=["hint"]
# A rank arrives at the start of its span "all-reduce". Who arrives last waits for nobody, and all
# the others wait for it.

# %% [markdown] tags=["expected"]
# If the ranks arrive 3, 7 and 5 ms after some common moment, they wait 4, 0 and 2 ms.

# %%
check.exercise_3(waiting, steps["share batch"])

# %% [markdown]
# ## Test the reading
#
# The timeline suggests why sharing samples may beat sharing the batch: half the samples is half of
# nearly everything in front of the update, half the rows is half of *some* of it. That is a
# hypothesis, and it can be tested without any communication. Let **one** rank do half the samples,
# and then half the rows, alone. This is what parallelism would give if sending and waiting were
# free.
#
# **Predict** the four numbers of each net.

# %% tags=["aside"]
def alone(net, data, samples, rows):
    """The largest tiles of both ways, each done by one rank alone, and the whole step."""
    tiles = {
        "one rank": Contender(None, samples, rows),
        "share samples": Contender(None, -(-samples // 2), rows),
        "share batch": Contender(None, samples, rows // 2),
    }
    return race(pool, tiles, heavy[net], data, seconds=SECONDS / 2)


print(f"{'':12}{'samples halved':>24}{'rows halved':>26}")
print(f"{'speed-up':12}" + 2 * f"{'one rank':>14}{'two ranks':>12}")
for net, samples in (("MLP", 16), ("ViT", 8)):
    free = alone(net, (images[net], digits.train_y), samples, batches[net])
    line = f"{net}, S = {samples:<2}"
    for way in ("share samples", "share batch"):
        for result in (free, strong[net, samples]):
            line += f"{result.speed_up(way, 'one rank')[1]:12.2f}×"
    print(line)

(spent,) = milliseconds([steps["one rank"][0]])
drawing = spent["draw"] / sum(spent.values())
print(f"drawing is {drawing:.0%} of the MLP's step on one rank (S = 8, from the timeline)")

# %% [markdown]
# **Explain.** Compare the two columns *one rank*. Their difference is what a shared batch pays: for
# drawing all samples on every rank, for touching all P weights S times, and for starting each
# operation S times, however few rows it then has. Then compare each with its neighbour *two ranks*.
# That difference is communication, waiting, and two processes on one memory.
#
# Now the other side of the story. The paper behind this course (Özdemir et al.) raced both on GPUs,
# and there **DDP had the better raw speed** at constant work. Is that a contradiction? Our
# hypothesis is that it is not: drawing noise and touching all parameters S times is a large part of
# a step on a CPU and for a *small* net, and this is the part that only sample sharing shares. On a
# GPU noise is cheap, large nets spend their time on rows, and then there is nothing left to win by
# drawing less. The table supports the first half of that sentence if the gap between the columns
# *one rank* is wide for your MLP. It says nothing about GPUs: there you must race again.
#
# ## Where data parallelism wins
#
# So let us look for the place where sharing the batch must win, here and now: few samples, and a
# large batch. One draw then serves many rows, and the two ranks cannot share the samples fairly.
#
# The bars are the race of two ranks, as before. The diamonds are the largest tile of each way, done
# by one rank alone: what the bar would be if sending and waiting were free. A busy machine disturbs
# bars much more than diamonds.
#
# **Predict:** S = 1, 2, 3, with 2048 rows. What is the limit of each way, and who wins?

# %% tags=["aside"]
rows = torch.arange(2048) % len(digits.train_x)  # the digits repeat; a clock won't mind
large = (spnb.share(digits.train_x[rows]), digits.train_y[rows])
few, tiles = {}, {}
for samples in (1, 2, 3):
    few[samples] = race(pool, contenders(samples, 2048), heavy["MLP"], large, seconds=SECONDS)
    free = alone("MLP", large, samples, 2048)
    halves = {name: free.spread(name)[1] for name in ("share samples", "share batch")}
    tiles[samples] = {name: ms for name, ms in halves.items() if name in few[samples].rounds}
    tiles[samples]["DDP"] = halves["share batch"]
    print(f"S = {samples}, the tiles alone: {verdict(free)}")
    best = {name: limit(sharing[name], samples, 2048) for name in halves}
    print(f"{'limits':>20}:", ", ".join(f"{name} {value:.2f}×" for name, value in best.items()))
show_races(few, lambda samples: f"MLP, S = {samples}", "2048 rows, ◇ the tile alone", tiles)

# %% [markdown]
# **Explain.** “Share batch” and “DDP” are both data parallelism.
#
# - **S = 1**: there is nothing to share along the samples. Whatever is won is won by the batch.
# - **S = 2**: both have the limit 2, and the draws are few against the rows. Expect it to be close.
# - **S = 3**: 2 + 1. Sharing samples cannot do better than 1.5 times, sharing the batch can reach
#   2. Here data parallelism has the better tile, by right. If no other program gets in the way, it
#   wins the race as well.
#
# The same holds on more ranks: with S smaller than the ranks, or not much larger and odd, look at
# the largest tile. On many ranks the answer is often *both at once*, and that is the next notebook.
#
# ### Exercise 4 · difficulty 3/5 · 10 minutes
#
# Write the rule down. Return the better of the two layouts `spnb.Layout(sample=world_size)` and
# `spnb.Layout(data=world_size)`, by the largest tile. If both are alike, share the samples, because
# then each rank draws fewer. Never return a layout with a rank that has no sample.


# %% tags=["exercise"]
def choose(num_samples, num_rows, world_size):
    """The better of the two pure layouts."""
    # BEGIN SOLUTION
    # STUB: layout = ...
    by_samples, by_rows = spnb.Layout(sample=world_size), spnb.Layout(data=world_size)
    better = limit(by_samples, num_samples, num_rows) >= limit(by_rows, num_samples, num_rows)
    layout = by_samples if better and num_samples >= world_size else by_rows
    # END SOLUTION
    return layout


# %% [markdown] tags=["hint"]
# `limit(layout, num_samples, num_rows)`, from above, does the arithmetic. Or do it yourself: the
# largest tile has `ceil(num_samples / world_size)` samples and all rows, or all samples and
# `ceil(num_rows / world_size)` rows.

# %% [markdown] tags=["expected"]
# `choose(16, 256, 2)` shares the samples, `choose(3, 256, 2)` the batch.

# %%
check.exercise_4(choose)

# %% [markdown]
# (The pool stays open, so that you can go back to the race. Idle workers end by themselves.)
#
# ## The rule
#
# 1. Take the layout with the smallest largest tile. S smaller than the ranks, or odd and small:
#    share the batch. B small or odd: share the samples.
# 2. Where the tiles are alike, share the samples: the draws are shared, too. It matters for small
#    nets and large S. It matters little where the rows take all the time.
# 3. If you can have *more* instead of *faster*, ask what your gradient suffers from: draws or rows.
# 4. Then race it, on the machine that will do the work. The rules say who can win, the clock says
#    who does.
#
# ## You can now
#
# - train a Bayesian net with PyTorch's own DDP, and prove that it computes the data layout
# - say what each rank must draw, evaluate, send and update, in each layout
# - race layouts at constant work, and at work that grows with the ranks, and compute efficiencies
# - read a per-rank timeline: what a step is made of, and who waits for whom
# - choose a layout for given samples, rows and ranks
#
# **Next:** notebook 05 combines both: layouts with two axes.
#
# ## References
#
# - Asena Karolin Özdemir, Lars H. Heyen, Arvid Weyrauch, Achim Streit, Markus Götz, Charlotte
#   Debus: *Sampling Parallelism for Fast and Efficient Bayesian Learning*,
#   [arXiv 2604.04736](https://arxiv.org/abs/2604.04736), 2026.
# - S. Li et al.: *PyTorch Distributed: Experiences on Accelerating Data Parallel Training*,
#   [arXiv 2006.15704](https://arxiv.org/abs/2006.15704), 2020.
# - G. M. Amdahl: *Validity of the single processor approach to achieving large scale computing
#   capabilities*, AFIPS Conference Proceedings 30, 1967: strong scaling.
# - J. L. Gustafson: *Reevaluating Amdahl's law*, Communications of the ACM 31(5), 1988: weak
#   scaling.
# - P. Goyal et al.: *Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour*,
#   [arXiv 1706.02677](https://arxiv.org/abs/1706.02677), 2017: a larger batch is another training.
# - D. P. Kingma, T. Salimans, M. Welling: *Variational Dropout and the Local Reparameterization
#   Trick*, [arXiv 1506.02557](https://arxiv.org/abs/1506.02557), 2015: draws that rows share make
#   a noisier gradient.
# - E. Alpaydin, C. Kaynak: *Optical Recognition of Handwritten Digits*, UCI Machine Learning
#   Repository, 1998 (the data).
