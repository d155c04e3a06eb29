# %% [markdown]
# # Sampling parallelism from scratch
#
# A Bayesian net is expensive for one reason: a step needs S draws of all its weights. But the S
# draws have nothing to do with each other until the very end. So give each worker some of them.
# That is the whole idea. In this notebook you derive it, write it in about 30 lines of plain
# `torch.distributed`, prove that it computes *the same training* as one process does, and break
# it in the ways in which it has been broken before.
#
# **You will be able to**
#
# - write one training step of a Bayesian net as a sum over samples, and cut that sum into ranks
# - write sampling parallelism in plain `torch.distributed`
# - check that a parallel gradient equals the serial one, to rounding
# - recognise the classic mistakes by what they do to the gradient
# - say what a step sends, when sharing samples is faster, and when sharing the batch is
#
# It takes about 60 minutes to work through. Run from top to bottom without stopping, the notebook
# needs about a minute at the `ci` scale on two cores and less than five minutes at the `laptop`
# scale (set `SPNB_SCALE` before JupyterLab starts to choose).

# %%
import os
import statistics

import torch
import torch.distributed as dist
from torch.nn import functional as F

import spnb
from spnb.parallel.devices import usable_cores
from spnb.teach import datasets, figures, scale
from spnb.teach.checks import nb03 as check
from spnb.teach.explore.lamp import equivalence_lamp
from spnb.teach.explore.tiles import tile_board
from spnb.teach.mistakes import measure
from spnb.teach.passport import provenance

torch.set_num_threads(1)  # small nets gain nothing from more, and the workers want the cores
SEED = 0
STEPS = scale.pick(ci=60, laptop=300, node=1000)  # of training
ROUNDS = scale.pick(ci=4, laptop=15, node=60)  # of the race at the end
RACE_BATCH = 1024
SAMPLES, BATCH, WIDTH = 8, 128, 16

print(f"scale: {scale.name()}, {STEPS} training steps, {ROUNDS} rounds of the race")
print(provenance(SEED))

# %% [markdown]
# ## One process first
#
# The data: scikit-learn's handwritten digits, 8 × 8 pixels. We work in double precision (`float64`)
# here. Training does not need it. *Comparing* does: a wrong gradient and an honest rounding error
# should be easy to tell apart.

# %%
digits = datasets.digits()
print(digits)
print(digits.sentence)
x, y = digits.train_x.double(), digits.train_y
N = len(x)  # all training images
pool = spnb.WorkerPool(2, idle_timeout=300)  # the two workers start while you read on

# %% [markdown]
# The net has one hidden layer. All its weights stand in *one* vector `w`, so that drawing a sample
# is one line. Instead of `w` itself we learn two vectors: the mean `mu`, and `rho`, which gives the
# standard deviation `sigma = softplus(rho)`. Sample s of the weights is
#
# $$ w_s = \mu + \sigma \, \varepsilon_s, \qquad \varepsilon_s \sim \mathcal N(0, 1). $$
#
# One decision matters more than it seems to: *where does the noise come from?* We let the **sample
# index** own it. Sample 5 of step 12 has the same noise whoever computes it. Remember this line.

# %%
SHAPES = [(64, WIDTH), (WIDTH,), (WIDTH, 10), (10,)]
SIZES = [torch.Size(shape).numel() for shape in SHAPES]
P = sum(SIZES)


def forward(w, x):
    """Logits ``[B, 10]`` of the net with the weights ``w``, ``[P]``."""
    w1, b1, w2, b2 = (part.view(shape) for part, shape in zip(w.split(SIZES), SHAPES, strict=True))
    return torch.tanh(x @ w1 + b1) @ w2 + b2


def noise(step, sample):
    """The noise of one sample at one step: a function of these two numbers, and of nothing else."""
    generator = torch.Generator().manual_seed(1_000_003 * step + sample)
    return torch.randn(P, generator=generator, dtype=torch.float64)


print(f"P = {P:,} weights; sample 5 of step 12 begins with {noise(12, 5)[:2].tolist()}")

# %% [markdown]
# The loss of one step is what every variational net minimises, the negative *evidence lower bound*:
#
# $$ L = \frac{1}{S} \sum_{s=1}^{S} \ell(w_s) \; + \; \frac{1}{N} \mathrm{KL}(q \,\|\, p). $$
#
# The first term asks each sample how badly it explains the batch, on average over its rows. The
# second keeps the posterior q near the prior p, here a standard normal; it does not depend on the
# samples at all. N is the number of *all* training images, however few of them are in the batch:
# over an epoch the KL then counts once. Divided by the batch's 128 it would count eleven times.
#
# **Predict:** which part of the next cell would you give to another worker?


# %%
def divergence(mu, sigma):
    """KL of independent normals from the standard normal."""
    return (0.5 * (mu**2 + sigma**2 - 1) - sigma.log()).sum()


def serial_gradient(mu, rho, x, y, num_samples, step=0):
    mu, rho = mu.clone().requires_grad_(), rho.clone().requires_grad_()
    sigma = F.softplus(rho)
    data_term = sum(
        F.cross_entropy(forward(mu + sigma * noise(step, s), x), y) for s in range(num_samples)
    )
    loss = data_term / num_samples + divergence(mu, sigma) / N
    return torch.cat(torch.autograd.grad(loss, (mu, rho)))


torch.manual_seed(SEED)
mu = 0.1 * torch.randn(P, dtype=torch.float64)
rho = torch.full((P,), -3.0, dtype=torch.float64)
batch = (x[:BATCH], y[:BATCH])
serial = serial_gradient(mu, rho, *batch, SAMPLES)
print(f"{len(serial):,} entries, the largest is {serial.abs().max():.4f}")

# %% [markdown]
# **Explain.** The `for s in range(num_samples)`: each turn of that loop needs nothing from the
# others. All the time goes there.
#
# ## The work as a board
#
# Draw that loop as a board, S samples down and B rows across. The next figure shows who does
# what, cut by the very function that `spnb` trains with.
#
# **Predict, then move the sliders.** With 16 samples, set `sample = 6`. How large are the tiles?
# What happens with more sample ranks than samples? Then set `sample = 1` and raise `data`.

# %%
tile_board(samples=8, rows=16, sample_ranks=2, data_ranks=1)

# %% [markdown]
# ### Exercise 1 · difficulty 2/5 · 5 minutes
#
# Say which samples belong to a rank: a list of indices. All samples must be given out, none twice,
# and no rank may get two more than another. `my_samples(16, 6, rank)` is the case to think of.


# %% tags=["exercise"]
def my_samples(num_samples, world_size, rank):
    """The indices of the samples that this rank evaluates."""
    # BEGIN SOLUTION
    # STUB: mine = ...
    mine = list(range(rank, num_samples, world_size))  # dealt out like cards
    # END SOLUTION
    return mine


# %% [markdown] tags=["hint"]
# Deal them out like playing cards: to rank 0, to rank 1, ..., and again to rank 0. `range` takes a
# third argument.

# %% [markdown] tags=["expected"]
# 16 samples on 6 ranks: four ranks have 3 samples, two have 2. Other fair shares are accepted, too.

# %%
check.exercise_1(my_samples)

# %% [markdown]
# ## Cut the sum
#
# A sum can be added up in any grouping. Write $S_r$ for the samples of rank r, and W for the world
# size:
#
# $$ \nabla L = \sum_{r=0}^{W-1} \Big[ \underbrace{\frac{1}{S} \sum_{s \in S_r} \nabla \ell(w_s) +
# \frac{1}{W} \frac{1}{N} \nabla \mathrm{KL}}_{\text{what rank } r \text{ computes}} \Big] $$
#
# Two details decide whether it is right. The data term is divided by **S**, the number of samples
# of *all* ranks. And the KL term belongs to nobody, so each rank takes **1/W** of it, or else it
# is counted W times. The outer sum is the one thing that ranks must do together: an all-reduce.
#
# ### Exercise 2 · difficulty 2/5 · 5 minutes
#
# Write the part of one rank. `losses` holds the losses of this rank's own samples; the KL has been
# computed already. All ranks' parts will be *summed*.


# %% tags=["exercise"]
def part_of_rank(losses, kl, num_samples, num_data, world_size):
    """This rank's part of L: a number; the sum over all ranks must be L."""
    # BEGIN SOLUTION
    # STUB: part = ...
    part = losses.sum() / num_samples + kl / num_data / world_size
    # END SOLUTION
    return part


# %% [markdown] tags=["hint"]
# `num_samples` is S, over all ranks; `len(losses)` is only this rank's share. And what do you get
# if every rank adds all of the KL?

# %% [markdown] tags=["expected"]
# With losses `[1, 2, 3]` on one rank and `[4]` on the other, a KL of 8 and N = 10, the parts add
# up to 10/4 + 8/10 = 3.3.

# %%
check.exercise_2(part_of_rank)

# %% [markdown]
# ## The whole algorithm
#
# Here it is, with Adam and everything. Each rank starts from the same `mu` and `rho`, takes its own
# samples, and sends one vector a step: its gradient and its loss. Without a process group the same
# function is the serial algorithm, W = 1.
#
# **Predict:** how many numbers does a rank send in each step? Does it depend on S? On B?


# %%
def train(mu, rho, x, y, num_samples, steps, learning_rate=0.02):
    parallel = dist.is_initialized()
    rank, world_size = (dist.get_rank(), dist.get_world_size()) if parallel else (0, 1)
    mine = range(rank, num_samples, world_size)  # my samples
    mu, rho = mu.clone().requires_grad_(), rho.clone().requires_grad_()
    adam = torch.optim.Adam([mu, rho], lr=learning_rate)
    losses = []
    for step in range(steps):
        rows = (BATCH * step + torch.arange(BATCH)) % len(x)  # the same rows on every rank
        sigma = F.softplus(rho)
        data_term = mu.new_zeros(())
        for s in mine:
            w = mu + sigma * noise(step, s)  # the sample owns its noise
            data_term = data_term + F.cross_entropy(forward(w, x[rows]), y[rows])
        loss = data_term / num_samples + divergence(mu, sigma) / N / world_size
        parts = [*torch.autograd.grad(loss, (mu, rho)), loss.detach().view(1)]
        message = torch.cat(parts)
        if parallel:
            dist.all_reduce(message)  # the only communication: one sum
        mu.grad, rho.grad = message[:P], message[P : 2 * P]
        adam.step()  # the same step on every rank
        losses.append(message[-1].item())
    return mu.detach(), rho.detach(), losses


# %% [markdown]
# Run it twice: here, in one process, and on both ranks of the pool. The function goes to the
# workers as it stands in the cell. Then compare the trained weights. That is the test that
# counts: two trainings that only *resemble* each other would drift apart, step after step.

# %% tags=["aside"]
alone = train(mu, rho, x, y, SAMPLES, STEPS)
together = pool.run(train, mu, rho, x, y, SAMPLES, STEPS)

fig, ax = figures.new(7.2, 3.0)
ax.plot(alone[2], **figures.look(0, marker=False), label="one process")
ax.plot(together[0][2], **figures.look(1, marker=False), label="two ranks, 4 samples each")
ax.set(xlabel="step", ylabel="loss in nats", title="Two trainings, one curve")
ax.legend()
apart = max((a - b).abs().max().item() for a, b in zip(alone[:2], together[0][:2], strict=True))
figures.show(
    fig,
    alt=f"The loss of the serial and of the parallel training over {STEPS} steps. "
    f"The two curves coincide, from {alone[2][0]:.2f} down to {alone[2][-1]:.2f} nats.",
)
print(f"trained weights, serial against parallel: largest difference {apart:.1e}")
print("rank 0 and rank 1 hold the same weights:", torch.equal(together[0][0], together[1][0]))
print(f"each rank handed {8 * (2 * P + 1):,} bytes to the all-reduce in every step")

# %% [markdown]
# **Explain.** The difference is a few units in the last place of a 64-bit number: the sum was
# added up in another order, nothing else. Each rank sent 2P + 1 numbers a step, however many
# samples or rows there were. *That* is why S is a good axis to cut: more samples are more work,
# but not more traffic.
#
# ## Break it
#
# A parallel program that is wrong does not crash. It trains, the loss falls, and the result is a
# bit worse than it should be. So learn what the classic mistakes look like:
#
# - **same seed everywhere**: each rank seeds its generator alike, and starts to draw. All ranks
#   draw the *same* samples. You pay for S, and get S / W.
# - **sum for mean**: each rank takes the mean over its own samples, and the means are summed.
# - **KL on every rank**: each rank adds the whole KL term. With two ranks it is counted twice.
# - **integer division**: each rank does `S // W` samples. What is left over is silently forgotten.
#
# (For this cell and the lamp below the batch is all the data there are, N = 128: the KL is then
# large enough to be seen in the figures.)
#
# **Predict** for each: is the gradient W times too long, or tilted, or merely noisier?

# %%
net = torch.nn.Sequential(torch.nn.Linear(64, WIDTH), torch.nn.Tanh(), torch.nn.Linear(WIDTH, 10))
model = spnb.BayesianModel(net.double())
posterior = spnb.MeanField(model, init_scale=0.05)

cases = {
    "no mistake": [],
    "same seed everywhere": ["same_seed"],
    "sum for mean": ["sum_for_mean"],
    "KL on every rank": ["kl_twice"],
    "integer division (7 // 2)": ["lost"],
}
print(f"{'':27}{'max |difference|':>17}{'length / serial':>17}{'angle':>9}")
for name, mistakes in cases.items():
    reading = measure(posterior, batch, num_samples=7, mistakes=mistakes, pool=pool)
    length = (reading.parallel.norm() / reading.serial.norm()).item()
    cosine = F.cosine_similarity(reading.parallel, reading.serial, dim=0).clamp(-1, 1)
    print(f"{name:27}{reading.difference:17.1e}{length:17.3f}{cosine.acos().rad2deg():8.2f}°")

shares = [len(spnb.Layout(sample=6).tile(rank, 16, 1).samples) for rank in range(6)]
print(f"\n16 samples on 6 ranks: by integer division {6 * (16 // 6)} are left, by spnb {shares}")

# %% [markdown]
# **Explain.** *Sum for mean* makes the gradient W times too long in its data term. Adam divides
# the length away again, so you may never notice, except that the KL now weighs W times too
# little: in effect you train another model. *KL on every rank* is the same mistake in the other
# direction. *Same seed* and *integer division* give an honest gradient of fewer samples: nothing
# is biased, but it is noisier than what you paid for.
#
# The lamp below is lit as long as parallel equals serial. It computes on the two live workers
# each time you press a switch. Break it, repair it, and look at the entries on the right: a
# longer gradient is a steeper line, a noisier one a cloud. Then set S = 8 and make *two*
# mistakes, “sum for mean” and “KL on every rank”. Why is the line straight again, and why would
# Adam never tell you?

# %%
lamp = equivalence_lamp(posterior, batch, pool=pool, num_samples=7)
lamp

# %% [markdown]
# ### Exercise 3 · difficulty 3/5 · 8 minutes
#
# Somebody else's code gives you, for each rank, the **mean** gradient over that rank's own samples,
# and how many samples they were. Combine them into the mean over all samples. The ranks hold
# different numbers of samples.


# %% tags=["exercise"]
def combine(local_means, counts):
    """Mean over all samples ``[P]``, from ``local_means [W, P]`` and ``counts [W]``."""
    # BEGIN SOLUTION
    # STUB: mean = ...
    weights = counts / counts.sum()
    mean = (weights[:, None] * local_means).sum(0)
    # END SOLUTION
    return mean


# %% [markdown] tags=["hint"]
# A rank with 3 samples out of 4 must count for 3/4. Multiply each mean by its count and you have
# its sum again.

# %% [markdown] tags=["expected"]
# Means `[[1.], [5.]]` from 3 samples and 1 sample combine to `[2.]`, not to `[3.]`.

# %%
check.exercise_3(combine)

# %% [markdown]
# ### Exercise 4 · difficulty 4/5 · 15 minutes
#
# Now write the gradient of one step yourself, from an empty function. It runs on every rank of
# the pool, and every rank must return the whole gradient: `torch.cat` of the gradients of `mu`
# and `rho`. `x` and `y` are a batch. Start from `serial_gradient` above; `noise`, `forward`,
# `divergence` and `N` are there for you. The checker runs it on both workers with 7 samples, and
# knows the mistakes by name.


# %% tags=["exercise"]
def my_gradient(mu, rho, x, y, num_samples, step):
    """The gradient of the loss over all ranks' samples: ``[2 P]``, the same on every rank."""
    # BEGIN SOLUTION
    # STUB: gradient = ...
    rank, world_size = dist.get_rank(), dist.get_world_size()
    mu, rho = mu.clone().requires_grad_(), rho.clone().requires_grad_()
    sigma = F.softplus(rho)
    data_term = sum(
        F.cross_entropy(forward(mu + sigma * noise(step, s), x), y)
        for s in range(rank, num_samples, world_size)
    )
    loss = data_term / num_samples + divergence(mu, sigma) / N / world_size
    gradient = torch.cat(torch.autograd.grad(loss, (mu, rho)))
    dist.all_reduce(gradient)
    # END SOLUTION
    return gradient


# %% [markdown] tags=["hint"]
# Three lines differ from `serial_gradient`: the range of the loop, the KL's factor, and an
# all-reduce of the result. What the data term is divided by does *not* change.

# %% [markdown] tags=["expected"]
# The largest difference from `serial_gradient` is below 1e-12 on both ranks.

# %%
check.exercise_4(my_gradient, serial_gradient, (mu, rho, *batch), N, pool)

# %% [markdown]
# ## The same with spnb
#
# `spnb.fit` is this algorithm for any network, prior and objective. The **layout** says how the
# board is cut, and it is the only thing you change. `Layout(sample=2)` is what you have just
# written; `Layout(data=2)` is data parallelism.
#
# **Predict:** three layouts, serial, 2×1 and 1×2. Which of them end with the same weights?

# %%
options = dict(num_samples=SAMPLES, batch_size=BATCH, epochs=2, learning_rate=0.01, seed=SEED)
layouts = {"2×1 (sample)": spnb.Layout(sample=2), "1×2 (data)": spnb.Layout(data=2)}

runs = {"serial": spnb.fit(posterior, (x, y), **options)}
for name, layout in layouts.items():
    runs[name] = pool.run(spnb.fit, posterior, (x, y), layout=layout, **options)[0]

print(f"{'layout':14}{'last loss':>10}{'bytes a step':>14}{'means, off by':>15}")
for name, found in runs.items():
    gap = (found.posterior.loc - runs["serial"].posterior.loc).abs().max().item()
    sent = found.history.bytes_per_step
    print(f"{name:14}{found.history.loss[-1]:10.6f}{sent:14,.0f}{gap:15.1e}")

# %% [markdown]
# **Explain.** All three, to rounding. In `spnb` the sample index owns its noise in *every*
# layout, so how you cut the board never changes what you compute. You can train on two ranks, and
# debug on one.
#
# ### Exercise 5 · difficulty 2/5 · 5 minutes
#
# Predict what a rank hands to the all-reduce in a step: a mean-field posterior over `num_weights`
# weights, `num_samples` samples, `batch_size` rows, numbers of `itemsize` bytes. (Leave the
# handful of losses aside: the checker allows 1 %.)


# %% tags=["exercise"]
def bytes_per_step(num_weights, num_samples, batch_size, itemsize):
    # BEGIN SOLUTION
    # STUB: sent = ...
    sent = 2 * num_weights * itemsize  # a mean and a scale for each weight
    # END SOLUTION
    return sent


# %% [markdown] tags=["hint"]
# It is one gradient, already summed over this rank's samples and rows. How many numbers does a
# mean-field posterior learn for each weight?

# %% [markdown] tags=["expected"]
# The number that `spnb.fit` counted above, but for a few bytes.

# %%
check.exercise_5(bytes_per_step, pool)

# %% [markdown]
# ## Is it faster?
#
# Now the honest part. Let us time three layouts on the same work: *one rank* does everything and
# the other idles; the samples are shared; the batch is shared. Each worker has the same number of
# threads in all three. Small machines are noisy, so look at medians, and at the whiskers, which
# span the middle half of the steps.
#
# **Predict:** who wins with S = 8? With S = 3, how can two ranks share three samples? With S = 1?


# %%
def race(posterior, data, ways, batch_size, rounds, steps=8):
    """Milliseconds of each step, by S and way; in rounds, so that a passing load meets all."""
    rows = torch.arange(steps * batch_size) % len(data[0])  # the data repeat; a clock won't mind
    x, y = data[0][rows], data[1][rows]
    times = {}
    for samples in rounds * [8, 3, 1]:
        for name, layout in ways.items():
            dist.barrier()
            if layout is None and dist.get_rank() > 0:
                continue  # this rank idles
            if layout is not None and layout.sample > samples:
                continue  # it would be refused
            found = spnb.fit(
                posterior,
                (x, y),
                layout=layout,
                num_samples=samples,
                batch_size=batch_size,
                epochs=1,
            )
            measured = [1000 * record.seconds for record in found.history.steps[2:]]
            times.setdefault((samples, name), []).extend(measured)
    return times


# %% tags=["aside"]
ways = {
    "one rank": None,
    "share samples": spnb.Layout(sample=2),
    "share batch": spnb.Layout(data=2),
}
wide = torch.nn.Sequential(torch.nn.Linear(64, 256), torch.nn.Tanh(), torch.nn.Linear(256, 10))
heavy = spnb.MeanField(spnb.BayesianModel(wide))
times = pool.run(race, heavy, spnb.share((x.float(), y)), ways, RACE_BATCH, ROUNDS)[0]
medians = {key: statistics.median(value) for key, value in times.items()}

try:
    ways["share samples"].check_work(num_samples=1, num_rows=RACE_BATCH)
except ValueError as refusal:
    print("S = 1:", refusal)
print(f"during the race, {os.getloadavg()[0]:.1f} processes wanted one of {usable_cores()} cores")


# %% tags=["aside"]
def draw_times(ax, samples):
    """A bar for each way to do a step: the median, with whiskers over the middle half."""
    for place, name in enumerate(ways):
        if (samples, name) not in times:
            ax.text(place, 0, "cannot\nshare", ha="center", va="bottom", color=figures.GREY)
            continue
        low, middle, high = statistics.quantiles(times[samples, name], n=4)
        look = {"color": figures.COLOURS[place], "hatch": ("", "//", "..")[place]}
        ax.bar(place, middle, edgecolor="black", width=0.7, **look)
        ax.errorbar(place, middle, [[middle - low], [high - middle]], color="black", capsize=4)
        ax.text(place, high, f"{middle:.1f}\n", ha="center", va="center", fontsize=9.5)
    ax.set(xticks=range(3), xticklabels=["one\nrank", "share\nsamples", "share\nbatch"])
    ax.set_title(f"S = {samples}")
    ax.margins(y=0.12)
    ax.grid(axis="x", visible=False)


fig, panels = figures.new(9.2, 3.2, columns=3)
for ax, samples in zip(panels, (8, 3, 1), strict=True):
    draw_times(ax, samples)
panels[0].set_ylabel("ms a step")
told = "; ".join(f"S = {s}, {name}: {value:.1f}" for (s, name), value in medians.items())
figures.show(fig, alt=f"Median step times in milliseconds. {told}.")

# %% tags=["aside"]
print("speed against one rank:")
for samples in (8, 3, 1):
    alone = medians[samples, "one rank"]
    speeds = {name: alone / medians[samples, name] for name in ways if (samples, name) in medians}
    del speeds["one rank"]
    fastest = max(speeds, key=speeds.get)
    verdict = f"{fastest} wins" if speeds[fastest] > 1.05 else "nobody beats one rank"
    print(f"S = {samples}:", ", ".join(f"{n} {v:.2f}×" for n, v in speeds.items()), f"({verdict})")

# %% [markdown]
# **Explain.** These are *your* machine's numbers, so read them with the arithmetic in mind:
#
# - With **S = 8** both layouts halve the work in front of the net. Sharing samples also halves
#   the *drawing* of weights; sharing the batch does not, because each rank then needs all eight
#   draws.
# - With **S = 3** the samples split 2 + 1, so sharing them can never be better than 3/2 = 1.5× one
#   rank. The batch of 1024 still splits evenly: here **data parallelism has the better limit**.
# - With **S = 1** there is nothing to share along the sample axis. Data parallelism can still cut
#   the batch. (Many people train with S = 1. They need it.)
# - For a small net all of this can be *slower* than one rank: the all-reduce costs a fixed time,
#   and every step waits for the slower rank. Look at the load printed above: if it exceeds the
#   number of cores, other programs took part in the race, and two ranks suffer more than one.
#
# So why share samples at all? Because the interesting question is usually not "the same S faster"
# but "*more* samples in the same time": S grows with the ranks, the traffic stays, each rank can
# see its own augmentation of the batch. Notebook 04 measures both questions properly.
#
# (We do not close the pool. Its workers end by themselves after five idle minutes, and the next
# call starts new ones. So you can go back to the lamp.)
#
# ## You can now
#
# - write one training step of a Bayesian net as a sum over samples, and cut that sum into ranks
# - write sampling parallelism in plain `torch.distributed`
# - check that a parallel gradient equals the serial one, to rounding
# - recognise the classic mistakes by what they do to the gradient
# - say what a step sends, when sharing samples is faster, and when sharing the batch is
#
# **Next:** notebook 04 looks at data parallelism, honestly, and lets the two race.
#
# ## References
#
# - Asena Karolin Özdemir, Lars H. Heyen, Arvid Weyrauch, Achim Streit, Markus Götz, Charlotte
#   Debus: *Sampling Parallelism for Fast and Efficient Bayesian Learning*,
#   [arXiv 2604.04736](https://arxiv.org/abs/2604.04736), 2026.
# - C. Blundell et al.: *Weight Uncertainty in Neural Networks*,
#   [arXiv 1505.05424](https://arxiv.org/abs/1505.05424), 2015: the loss and the noise of a sample.
# - D. P. Kingma, M. Welling: *Auto-Encoding Variational Bayes*,
#   [arXiv 1312.6114](https://arxiv.org/abs/1312.6114), 2013: the reparameterisation.
# - S. Li et al.: *PyTorch Distributed: Experiences on Accelerating Data Parallel Training*,
#   [arXiv 2006.15704](https://arxiv.org/abs/2006.15704), 2020.
# - E. Alpaydin, C. Kaynak: *Optical Recognition of Handwritten Digits*, UCI Machine Learning
#   Repository, 1998 (the data).
