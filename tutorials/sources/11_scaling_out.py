# %% [markdown]
# # Scaling out
#
# Until now you had two workers behind a notebook, and runs of a minute. A large run is different in
# two ways. Its ranks stand on many machines, where no notebook can start them. And it lasts long
# enough for something to break.
#
# Neither changes the function that you call. This notebook starts it in the way of large machines,
# cuts it off in the middle, takes it up again somewhere else, lets workers die under it, and counts
# each time what was lost.
#
# **You will be able to**
#
# - start the same training from a notebook, from a launcher on several nodes, and under Slurm
# - say which axis belongs inside a node, and see where a layout crosses the cable
# - write checkpoints, and take a run up again on another layout
# - say what a killed, hanging or failing rank costs, and what mends it
# - choose how often to write a checkpoint
# - share out a posterior that is too large for one device, and say what that costs
# - plan a run on GPUs that you do not have
#
# It takes about 60 minutes to work through. Run from top to bottom without stopping, the notebook
# needs a minute or so at any scale: what it shows does not depend on size.

# %%
import math
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

import spnb
from spnb.maths.networks import ViT, mlp
from spnb.run import costs
from spnb.run.plan import layouts, predict
from spnb.teach import datasets, figures, scale
from spnb.teach.checks import nb11 as check
from spnb.teach.explore.accidents import accident_lab
from spnb.teach.passport import provenance

SEED = 0
folder = tempfile.TemporaryDirectory(prefix="spnb-")  # the last cell removes it
FOLDER = Path(folder.name)
torch.set_num_threads(1)  # the workers want the cores
pool = spnb.WorkerPool(2)
print(f"scale: {scale.name()}\n{provenance(SEED)}")

# %% [markdown]
# ## Three ways to start the same thing
#
# A run on many nodes begins as a *script*. Here is one, as short as they can be: handwritten
# digits, a Bayesian network, `spnb.fit`. Its last lines run when the file is started as a program.
# All before is an ordinary function, which a notebook can import.
#
# The layout is `sample=-1`: share the samples between as many ranks as there are.

# %%
SCRIPT = '''
import sys
import torch, spnb
from spnb.maths.networks import mlp
from spnb.teach import datasets

def train(layout, epochs=4, **options):
    torch.manual_seed(0)
    net = mlp([64, 64, 10], torch.nn.Tanh).double()
    start = spnb.MeanField(spnb.BayesianModel(net, spnb.priors.fan_in(), "categorical"), 0.05)
    images = datasets.digits()
    data = images.train_x[:640].double(), images.train_y[:640]
    return spnb.fit(start, data, layout=layout, num_samples=8, batch_size=64, epochs=epochs,
                    learning_rate=0.01, **options)

if __name__ == "__main__":
    torch.set_num_threads(1)
    fitted = train(spnb.Layout(sample=-1))
    spnb.save(fitted.posterior, f"{sys.argv[1]}/rank{torch.distributed.get_rank()}.safetensors")
'''
(FOLDER / "train.py").write_text(SCRIPT)
sys.path.insert(0, str(FOLDER))
from train import train

# %% [markdown]
# First here: in this process alone, and by the two workers of the pool. We compare all parameters,
# means and scales of 4,810 weights.

# %%
def gap(one, other):
    """Largest difference of two posteriors' parameters."""
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return max((a - b).abs().max().item() for a, b in pairs)


serial = train(spnb.Layout()).posterior
pooled = pool.run(train, spnb.Layout(sample=2))[0].posterior
print(f"pool of two workers: the parameters differ by up to {gap(pooled, serial):.1e}")

# %% [markdown]
# Now as on a cluster. `torch.distributed.run` comes with PyTorch. On *each* node one starts it
# once, as an **agent**. The agents find each other at one address, agree on who is who, and start
# the ranks of their node. The next cell starts two agents with a rank each. They believe that they
# are two nodes. That both are this machine is a detail that they cannot see.
#
# **Predict:** the ranks have never heard of this notebook. They start from nothing, read the data
# themselves, and find each other at an address. By how much will their weights
# differ from those above?

# %% tags=["aside"]
def free_port():
    """A port that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


where = [f"--rdzv-endpoint=127.0.0.1:{free_port()}", "--local-addr=127.0.0.1"]
words = ["-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", "--rdzv-backend=c10d",
         "--rdzv-id=course", *where, f"--log-dir={FOLDER / 'logs'}",
         str(FOLDER / "train.py"), str(FOLDER)]
mine = {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path),
        "GLOO_SOCKET_IFNAME": "lo0" if sys.platform == "darwin" else "lo",
        "CUDA_VISIBLE_DEVICES": ""}  # nodes without GPUs: both would take this machine's first
told = os.environ | mine
agents = [subprocess.Popen([sys.executable, *words], env=told, stdout=subprocess.PIPE,
                           stderr=subprocess.STDOUT, text=True) for _ in range(2)]
said = [agent.communicate(timeout=120)[0] for agent in agents]
assert not any(agent.returncode for agent in agents), "\n".join(said)
for rank in range(2):
    launched = spnb.load(FOLDER / f"rank{rank}.safetensors", serial.model)
    print(f"rank {rank} of two nodes: differs from serial by {gap(launched, serial):.1e}, "
          f"from the pool by {gap(launched, pooled):.1e}")

# %% [markdown]
# **Explain.** Rounding errors at most. A sample's number and the seed say all about its noise, the
# seed says which rows come when. Nothing depends on who computes it, or on who started whom.
#
# In a terminal, on two real nodes with eight GPUs each, that is
#
# ```bash
# python -m torch.distributed.run --nnodes 2 --node-rank $NODE --master-addr $HOST \
#     --master-port 29500 --nproc-per-node 8 train.py .      # on both nodes
# ```
#
# and under Slurm, which starts the ranks itself,
#
# ```bash
# sbatch deploy/slurm/train.sbatch train.py .               # one rank a GPU
# ```
#
# `spnb.fit` finds out by itself which of these it is in: from the variables `RANK` and `WORLD_SIZE`
# of the launcher, or from `SLURM_PROCID` and its friends. Each rank takes the GPU of its own number
# on its node, and NCCL if there are GPUs. (The tests of this project start two Slurm nodes, and two
# hosts of their own network, on one machine. A cluster with GPUs it has not seen yet.)
#
# A **JupyterHub** is the third way to large machines: you log in with a browser, choose GPUs and
# hours, and get this notebook on a node. Nothing in it has to change: `WorkerPool()` takes one
# worker for each GPU it finds. `docs/admin.md` tells those who run a hub how it is set up.
#
# ## Which axis stays in the house?
#
# Inside a node GPUs talk over a fast bus. Between nodes there is a cable, nine times slower on the
# H100 nodes that the planner knows. So it matters *who talks to whom*. And that is decided by one
# thing: which rank stands where. Launchers number ranks node by node. Layouts count fastest along
# `shard`, then along `data`, and slowest along `sample`.
#
# **Predict** before you run: eight ranks on two nodes, `sample=2 × data=2 × shard=2`. Along which
# axes do the groups fit into a node?

# %%
layout, per_node = spnb.Layout(sample=2, data=2, shard=2), 4
fig, panels = figures.new(9.2, 2.9, columns=3, sharex=True, sharey=True)
counts = {}
for ax, axis in zip(panels, ("shard", "data", "sample"), strict=True):
    for node in range(2):
        ax.axvspan(2.2 * node - 0.45, 2.2 * node + 1.45, color=figures.GREY, alpha=0.13, lw=0)
        ax.text(2.2 * node + 0.5, 1.72, f"node {node}", ha="center")
    place = {r: (r % 2 + 2.2 * (r // per_node), 1 - r // 2 % 2) for r in range(layout.size)}
    crossing = 0
    for group in sorted({layout.ranks(r, axis) for r in range(layout.size)}):
        out = len({r // per_node for r in group}) > 1
        crossing += out
        (x1, y1), (x2, y2) = place[group[0]], place[group[1]]
        t = torch.linspace(0, 1, 30)
        bow = 4 * t * (1 - t) * (0.42 if group[0] % 2 else -0.42) * out
        ax.plot(x1 + (x2 - x1) * t, y1 + (y2 - y1) * t + bow, lw=2.5,
                color=figures.VERMILLION if out else figures.GREEN, ls="--" if out else "-")
    for r, at in place.items():
        ax.text(*at, r, ha="center", va="center", bbox={"boxstyle": "circle", "fc": "white"})
    ax.set(title=f"along {axis}", xlim=(-0.6, 3.8), ylim=(-0.55, 2.05))
    ax.set_axis_off()
    counts[axis] = crossing
figures.show(fig, alt="Eight ranks on two nodes; lines join those that talk to each other. Groups "
             f"that cross from node to node: {counts} of 4 each.")

# %% [markdown]
# **Explain.** Solid lines stay inside a node, dashed ones cross. What is said along each axis?
#
# | axis | its ranks tell each other | how often |
# |---|---|---|
# | `shard` | every sample's weights, and their gradients | **each sample**, twice |
# | `sample` and `data` | the gradient, as one sum | once a step |
# | `sample` | predictions, for objectives that need all samples | once a step, little |
#
# So `shard`, the talkative one, counts fastest and stays inside. What crosses the cable is one sum
# a step, and with `shard=2` each rank has only its own half of it to sum.
#
# ### Exercise 1 · difficulty 2/5 · 5 minutes
# How many *nodes* does rank 0's group along an axis touch? `layout.ranks(0, axis)` is the group.
# Each node has `per_node` ranks, numbered in a row.

# %% tags=["exercise"]
def nodes_touched(layout, axis, per_node):
    # BEGIN SOLUTION
    # STUB: return ...
    return len({rank // per_node for rank in layout.ranks(0, axis)})
    # END SOLUTION

# %% [markdown] tags=["hint"]
# Rank r stands on node `r // per_node`. A set keeps each number once.

# %% [markdown] tags=["expected"]
# For `Layout(sample=4, data=2, shard=4)` with 8 ranks a node: 1 along `shard`, 1 along `data`, 4
# along `sample`.

# %%
check.exercise_1(nodes_touched)

# %% [markdown]
# ## Stop here, go on there
#
# A job has a time limit. So write down how far the run is, now and then: a **checkpoint**. What has
# to be in it? The posterior, the optimiser's moments, the number of the step, the record so far.
# *No* state of any random generator: all random numbers are functions of the seed and the step. And
# nothing of the layout.
#
# The next cell trains half the epochs on two workers that share the *samples*. Then it goes on from
# there in four ways, and compares with the run that was never interrupted.
#
# **Predict:** on which of the four layouts will the run come out where it would have come out?

# %%
halfway = Path(tempfile.mkdtemp(dir=FOLDER))
pool.run(train, spnb.Layout(sample=2), epochs=2, checkpoints=spnb.Checkpoints(halfway, every=5))
last = spnb.Checkpoints(halfway).file(20)
print("written:", sorted(path.name for path in halfway.iterdir()), "\n")

print("one process  ", f"{gap(train(None, resume=last).posterior, serial):.1e}")
for layout in (spnb.Layout(sample=2), spnb.Layout(data=2), spnb.Layout(shard=2)):
    again = pool.run(train, layout, resume=last)[0].posterior
    print(f"{layout!s:<30}", f"{gap(again, serial):.1e}")

# %% [markdown]
# **Explain.** On all of them. The path does not know the layout, so it can be walked on anything. A
# job on 64 GPUs can go on with 8 over the weekend. (What *may not* change is what decides about the
# path: data, seed, S, batch size, learning rate. Change one of them, and `fit` refuses, and names
# it. More epochs are fine as long as no schedule looks ahead to the last one; that is how this run
# was cut in half.)
#
# Let us look into the file. It is a *safetensors* file: names, numbers, words, and nothing that
# could be executed. A pickle, which many programs use here, can run anything when it is loaded.

# %%
from safetensors import safe_open

with safe_open(last, "pt") as file:
    for name in file.keys():
        print(f"{name:<32}{tuple(file.get_tensor(name).shape)}")
    print("\nand words on:", ", ".join(sorted(file.metadata())))

# %% [markdown]
# ### Exercise 2 · difficulty 2/5 · 5 minutes
# How large is a checkpoint of a mean-field posterior with Adam, in bytes? Count the numbers that
# are kept for each weight, and leave out what does not grow with the network.

# %% tags=["exercise"]
def checkpoint_bytes(weights, bytes_per_number=4):
    # BEGIN SOLUTION
    # STUB: return ...
    return 6 * weights * bytes_per_number
    # END SOLUTION

# %% [markdown] tags=["hint"]
# A weight has a mean and a scale. For each of these two Adam keeps two moments. The list above
# shows all six.

# %% [markdown] tags=["expected"]
# About 231 kB for this network, in double precision. The check compares with the file.

# %%
check.exercise_2(checkpoint_bytes, last)

# %% [markdown]
# **Break it.** Disks fail, and jobs are killed while they write. Change one bit in the middle of
# the last checkpoint, and put a file from elsewhere beside it.
#
# **Predict:** what would a run do that loaded the changed bit without noticing? And what does this
# one do?

# %%
import shutil
import warnings

copy = spnb.Checkpoints(shutil.copytree(halfway, tempfile.mkdtemp(dir=FOLDER), dirs_exist_ok=True))
content = bytearray(last.read_bytes())
content[len(content) // 2] ^= 1
copy.file(20).write_bytes(content)
with warnings.catch_warnings(record=True) as heard:
    warnings.simplefilter("always")
    again = train(None, checkpoints=copy, resume=True).posterior
print("warned:", str(heard[0].message).replace(str(copy.path), "..."))
print(f"went on all the same; differs from the undisturbed run by {gap(again, serial):.1e}\n")

foreign = FOLDER / "foreign" / "step-00000007.safetensors"
foreign.parent.mkdir(exist_ok=True)
torch.save({"weights": torch.zeros(3)}, foreign)  # a pickle
try:
    train(None, resume=foreign)
except ValueError as refusal:
    print("refused:", str(refusal).replace(str(FOLDER), "..."))

# %% [markdown]
# **Explain.** Each file holds a digest of its own content. One wrong bit, and it is refused, with
# the reason, and the one before it is taken. That is why `Checkpoints` keeps two. And a file is
# written aside, brought to the disk, and renamed only then. So at any moment there is either the
# whole new file or none.
#
# ## When a rank dies
#
# Now the pool. This one is told what to do when something breaks: begin a run again when a worker
# has died (`restarts`), and give up a worker that hangs when nothing was heard of any for five
# seconds (`patience`; in earnest you would say minutes).
#
# In the lab you choose an accident, the rank and the step, and how often a checkpoint is written.
# Training is real, and so is the accident: a SIGKILL, a wait without end, a batch of NaN, a request
# for petabytes, your own stop button. The figure shows the steps that were done over time. Where it
# falls back, work was lost. The dashed line is a run that nothing happened to.
#
# **Predict – move – explain.**
#
# 1. Let rank 1 be killed at step 35, with a checkpoint every 12 steps. How many steps are lost?
#    Which rank has to do them again?
# 2. The same with a checkpoint after each step, and with none at all. What do you save, what do you
#    pay?
# 3. Let it hang. Why does it take so much longer until the notebook knows?
# 4. Compare with NaN. Why does the pool *not* begin again by itself?
# 5. In which of all these runs does the result differ?

# %%
sturdy = spnb.WorkerPool(2, restarts=2, patience=5.0, silence=None, idle_timeout=300)
images = datasets.digits()
torch.manual_seed(SEED)
net = mlp([64, 256, 10], torch.nn.Tanh)
start = spnb.MeanField(spnb.BayesianModel(net, spnb.priors.fan_in(), "categorical"), 0.05)
accident_lab(sturdy, start, (images.train_x[:1024], images.train_y[:1024]), num_samples=32,
             layout=spnb.Layout(sample=2), batch_size=64, epochs=3, learning_rate=0.01, seed=SEED)

# %% [markdown]
# **Explain.** What is lost are the steps since the last checkpoint, for *all* ranks: they walk
# together. A death is noticed at once, since the system tells of it. Silence has to last a while
# before it means something. NaN, or too little memory, would come again at the same step: the run
# is a function of its seed. Only you can change something about that. And the result never differs,
# not by one bit.
#
# Most of the lost time is the start of a new process, which imports torch. Real runs last for days,
# and there the balance is another one. Which brings us to a question with a formula.
#
# ## How often to write?
#
# Write often, and you spend your time writing. Write rarely, and each accident costs much. In
# between there is a best interval. Let us find it by playing: we roll dice for the accidents of a
# run of
# 198 million weights on 1,024 GPUs. A checkpoint takes 2.4 seconds (4.8 GB at 2 GB a second), and
# accidents come 50 hours apart on average (`docs/scale.md` says where these numbers come from).

# %%
WRITE, BETWEEN = 2.4, 50 * 3600.0  # seconds


def wasted(interval, write, between, runs=20_000, seed=SEED):
    """Share of the time that does not become progress: writing, and work that was lost."""
    generator = torch.Generator().manual_seed(seed)
    accident = torch.empty(runs).exponential_(1 / between, generator=generator)  # one life each
    cycle = interval + write
    kept = (accident / cycle).floor() * interval  # work that is safe when the accident comes
    return 1 - kept.sum().item() / accident.sum().item()


intervals = [10 ** (0.25 * k) for k in range(4, 19)]  # 10 s to 9 hours
shares = [wasted(each, WRITE, BETWEEN) for each in intervals]

# %% [markdown]
# ### Exercise 3 · difficulty 3/5 · 10 minutes
# Now by thinking. With an interval T between checkpoints you spend `write / T` of your time
# writing. An accident comes every `between` seconds and costs, on average, half an interval: `T / 2
# / between`. For which T is the sum smallest? This is **Young's rule**, of 1974.

# %% tags=["exercise"]
def best_interval(write, between):
    # BEGIN SOLUTION
    # STUB: return ...
    return math.sqrt(2 * write * between)
    # END SOLUTION

# %% [markdown] tags=["hint"]
# The derivative of w / T + T / (2 M) is −w / T² + 1 / (2 M). Where is it zero?

# %% [markdown] tags=["expected"]
# Some 15 minutes for the numbers above. The check also plays it out.

# %%
check.exercise_3(best_interval)

# %%
best = math.sqrt(2 * WRITE * BETWEEN)
rule = [WRITE / each + each / 2 / BETWEEN for each in intervals]
fig, ax = figures.new(7.4, 3.4)
ax.plot(intervals, [100 * share for share in shares], **figures.look(0) | {"linestyle": "none"},
        label="played, 20,000 lives")
ax.plot(intervals, [100 * share for share in rule], color=figures.BLACK, lw=1.2, ls="--",
        label="write / T + T / (2 · between)")
ax.axvline(best, color=figures.VERMILLION, lw=1.5, ls=":", label=f"Young: {best / 60:.0f} minutes")
ax.set(xscale="log", yscale="log", xlabel="seconds between checkpoints", ylabel="% of time wasted",
       xlim=(8, 5e4), xticks=(10, 100, 1000, 10000), xticklabels=("10", "100", "1,000", "10,000"),
       yticks=(0.5, 1, 2, 5, 10, 20), yticklabels=(0.5, 1, 2, 5, 10, 20))
ax.minorticks_off()
ax.legend()
figures.footnote(fig, f"198 million weights, 1,024 GPUs; seed {SEED}")
least = min(range(len(shares)), key=shares.__getitem__)
figures.show(fig, alt="Share of wasted time against the interval, both axes logarithmic: a valley. "
             f"{100 * shares[0]:.0f} % at {intervals[0]:.0f} s, {100 * shares[least]:.2f} % at "
             f"{intervals[least] / 60:.0f} minutes, {100 * shares[-1]:.0f} % at "
             f"{intervals[-1] / 3600:.0f} hours. Young's rule says {best / 60:.0f} minutes.")

# %% [markdown]
# **Explain.** The valley is flat: half or twice the best interval costs little. So one need not
# know the numbers well. And the waste is half a percent: with checkpoints accidents are nothing to
# be afraid of, even on a thousand GPUs.
#
# ## Too large for one device
#
# Mean field with Adam keeps *eight* numbers for each weight: mean and scale, a gradient of each,
# two moments of each. That is 32 bytes, for every weight, on every GPU. Sharing samples or rows
# does not change it. The third axis does: along `shard` each rank keeps only its share of all
# eight.
#
# Whoever evaluates a sample needs all its weights, though. So each rank draws its part of them, and
# they are put together for that one sample, used, and let go.
#
# **Predict:** on two ranks with `shard=2`, what becomes of the numbers that a rank keeps? And what
# of those that it sends in a step with eight samples? (For comparison: with `data=2` it sends one
# gradient.)

# %% tags=["aside"]
def learn(layout):
    """A short run that says what a rank keeps, and what it sends."""
    kept = []

    def adam(posterior):
        kept.append(sum(parameter.numel() for parameter in posterior.parameters()))
        return torch.optim.AdamW(posterior.parameters(), lr=0.01)

    fitted = train(layout, epochs=1, optimizer=adam)
    return kept[0], fitted.history.bytes_per_step, fitted.posterior


found = {str(layout): pool.run(learn, layout) for layout in
         (spnb.Layout(data=2), spnb.Layout(sample=2), spnb.Layout(shard=2))}
print(f"{'':<30}{'parameters kept by rank 0, 1':>32}{'sent a step':>14}")
for name, ranks in found.items():
    kept = ", ".join(f"{own:,}" for own, _, _ in ranks)
    print(f"{name:<30}{kept:>32}{ranks[0][1] / 1e3:>11.0f} kB")
first, *others = [ranks[0][2] for ranks in found.values()]
print(f"the posteriors differ by up to {max(gap(first, other) for other in others):.1e}")

# %% [markdown]
# **Explain.** Half is kept; gradients and moments halve with the parameters. In exchange much more
# is sent: the weights of each sample, and their gradients back. That is the price, and it explains
# why `shard` belongs inside a node. On a network of some size it is small against the passes: a
# vision transformer with two ranks took 1.01 times as long with `shard=2` as with `data=2` (S = 8,
# two cores, `python -m benchmarks --parts sharding`), and kept 7.2 MB instead of 14.5.
#
# When should you use it? When you must. Samples and rows first; `shard` when memory says so, and
# only as far as it says so.
#
# ### Exercise 4 · difficulty 3/5 · 8 minutes
# Into how many shards must a posterior of `weights` weights be cut so that its eight numbers a
# weight, in 4 bytes each, fit into `memory` bytes of each GPU? Take the smallest power of two.

# %% tags=["exercise"]
def shards_needed(weights, memory):
    # BEGIN SOLUTION
    # STUB: return ...
    shards = 1
    while 32 * weights / shards > memory:
        shards *= 2
    return shards
    # END SOLUTION

# %% [markdown] tags=["hint"]
# Begin with 1 and double for as long as 32 bytes times the weights, divided by the shards, are too
# much.

# %% [markdown] tags=["expected"]
# 1 for 198 million weights and 60 GB; 2 for 3.1 billion and 60 GB. (The rest of a GPU's memory is
# for the weights of one sample and for activations.)

# %%
check.exercise_4(shards_needed)

# %% [markdown]
# ## A plan for machines that are not here
#
# What would you gain from 8, 64, 1,024 GPUs? The planner of notebook 05 knows data sheets. Here it
# plans a vision transformer of 2.7 million weights, 128 images a step, S = 64 samples, on H100
# GPUs, eight a node. Nothing is run: the network is made without memory, and its operations are
# counted. Then every layout of all three axes gets a prediction, and the fastest is shown.
#
# **Predict:** one GPU would need 169 ms a step. How many times as fast are 8 GPUs? 64? 1,024?

# %% tags=["aside"]
SAMPLES, ROWS, h100 = 64, 128, spnb.machines.H100
with torch.device("meta"):  # shapes without numbers
    vit = ViT(dim=192, depth=6, heads=3, hidden=768)
photos = torch.empty(ROWS, 3, 32, 32, device="meta"), torch.zeros(ROWS, dtype=torch.long)
transformer = spnb.MeanField(spnb.BayesianModel(vit, likelihood="categorical"))
counted, seconds = costs.count(transformer, photos, ROWS, h100), {}
print(f"{'GPUs':>6}  {'fastest layout':<34}{'ms a step':>10}{'speed-up':>10}{'passes':>9}"
      f"{'all-reduce':>12}")
for world in (1, 8, 64, 1024):
    ways = layouts(world, SAMPLES, ROWS, range(1, world + 1))
    best_way = min((predict(counted, h100, way, SAMPLES, ROWS, memory_limit=h100.memory)
                    for way in ways), key=lambda p: (not p.fits, p.seconds))
    took = seconds[world] = best_way.seconds
    print(f"{world:>6}  {best_way.layout!s:<34}{1e3 * took:>10.1f}{seconds[1] / took:>10.1f}"
          f"{best_way.parts['passes'] / took:>9.0%}{best_way.parts['all-reduce'] / took:>12.0%}")

# %% [markdown]
# **Explain.** Eight GPUs are nearly eight times as fast. Beyond that the sum of the gradients has
# to leave the node, and it is as long as two networks, whatever S is. With one sample left for each
# rank there is too little work between two sums: 64 GPUs wait as long as they compute. A thousand
# are better spent on sixteen runs of 64: seeds, priors, members of an ensemble. Those send each
# other nothing.
#
# These are predictions, within a factor of two for machines that nobody measured. On a machine that
# you have, `spnb.plan(..., pool=pool)` measures first. `docs/scale.md` has more tables, with
# `shard`, and all assumptions.
#
# ## Before you leave for a large machine
#
# - `python -m spnb.doctor` there: it tries two ranks and says what is wrong, in words.
# - Run the tour on all ranks: `srun python -m spnb tour --sample -1`. It compares with one process.
# - Give `fit` a folder for checkpoints, and `resume=True`. Then a job that was cut off is simply
#   submitted again.
# - With `deploy/slurm/elastic.sbatch` a job even survives the loss of a node: the others go on,
#   fewer, along the same path.

# %%
pool.close()  # the lab keeps its own; its workers go after five idle minutes
folder.cleanup()

# %% [markdown]
# ## You can now
#
# - start the same training from a notebook, from a launcher on several nodes, and under Slurm
# - say which axis belongs inside a node, and see where a layout crosses the cable
# - write checkpoints, and take a run up again on another layout
# - say what a killed, hanging or failing rank costs, and what mends it
# - choose how often to write a checkpoint
# - share out a posterior that is too large for one device, and say what that costs
# - plan a run on GPUs that you do not have
#
# **Next:** notebook 12 takes your own model and your own data.
#
# ## References
#
# - Asena Karolin Özdemir, Lars H. Heyen, Arvid Weyrauch, Achim Streit, Markus Götz, Charlotte
#   Debus: *Sampling Parallelism for Fast and Efficient Bayesian Learning*,
#   [arXiv 2604.04736](https://arxiv.org/abs/2604.04736), 2026.
# - PyTorch: [torchrun (Elastic Launch)](https://docs.pytorch.org/docs/stable/elastic/run.html).
# - S. Rajbhandari et al.: *ZeRO: Memory Optimizations Toward Training Trillion Parameter Models*,
#   [arXiv 1910.02054](https://arxiv.org/abs/1910.02054), 2019; Y. Zhao et al.: *PyTorch FSDP*,
#   [arXiv 2304.11277](https://arxiv.org/abs/2304.11277), 2023: the idea of the shard axis.
# - J. W. Young: *A First Order Approximation to the Optimum Checkpoint Interval*, Communications of
#   the ACM 17, 1974.
# - The Llama team: *The Llama 3 Herd of Models*,
#   [arXiv 2407.21783](https://arxiv.org/abs/2407.21783), 2024: section 3.3.4 counts what breaks.
