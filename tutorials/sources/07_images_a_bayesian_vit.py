# %% [markdown]
# # Images: a Bayesian ViT
#
# A network that sorts photographs will also sort a photograph of something it has never seen. It
# will name one of its ten classes, and often sound quite sure. In this notebook you make a vision
# transformer Bayesian, train it on shared samples, and ask it about blurred photographs, turned
# ones, and photographs of hands. Along the way you examine a claim of the paper: if every sample
# sees the images in a view of its own, the network learns in fewer epochs. Does it?
#
# **You will be able to**
#
# - read a vision transformer in one sitting, and count its tokens and weights
# - make it Bayesian by a prior, and nothing else
# - show one view of an image to all samples or to each its own, and say what that changes
# - measure epochs to a target with a confidence interval, and report what comes out
# - hold plain, data-parallel and sample-parallel training side by side
# - tell strange images from known ones by entropy and by mutual information, and judge how well
#
# It takes about 75 minutes to work through. Run from top to bottom without stopping, the notebook
# needs about a minute at the `ci` scale on two cores and about three minutes at the `laptop` scale
# (set `SPNB_SCALE` before JupyterLab starts to choose).

# %%
import time
from dataclasses import replace

import torch

import spnb
from spnb.maths import scores
from spnb.maths.networks import ViT, patches
from spnb.parallel.keyed import Key
from spnb.teach import datasets, figures, scale
from spnb.teach.checks import nb07 as check
from spnb.teach.corruptions import CORRUPTIONS, corrupt
from spnb.teach.explore.images import image_explorer
from spnb.teach.passport import provenance
from spnb.teach.plain import predict_plain, train_plain
from spnb.teach.recipes import augmentation, images, recorded

torch.set_num_threads(1)  # the workers want the cores
SEED = 0
settings = scale.pick(
    ci=replace(images.SETTINGS["ci"], num_train=1000, epochs=8, num_samples=2),
    laptop=images.Settings(4000, patch=8, dim=64, depth=3, heads=4, hidden=128, num_samples=2,
                           epochs=25, temperature=0.05),
    node=images.SETTINGS["node"])
print(f"scale: {scale.name()}, {settings}\n{provenance(SEED)}")

# %% [markdown]
# ## Photographs
#
# Ten classes, 32 × 32 pixels. The scale of the colours comes from the training images alone.

# %%
data = datasets.photographs(settings.num_train)
print(data, data.sentence, sep="\n")
pool = spnb.WorkerPool(2)  # the two workers start while you read on
scaling = datasets.Scaling.of(data.train_x, over=(0, 2, 3))
train, test_y = (scaling.apply(data.train_x), data.train_y), data.test_y
test_x = scaling.apply(data.test_x)

fig, panels = figures.new(9.6, 1.5, columns=10)
for label, ax in enumerate(panels):
    picture = data.train_x[(data.train_y == label).nonzero()[0, 0]]
    ax.imshow(picture.movedim(0, -1))
    ax.set_title(data.names[label], fontsize=9)
    ax.set(xticks=[], yticks=[])
    ax.grid(visible=False)
figures.show(fig, alt="One image of each class: " + ", ".join(data.names) + ".")

# %% [markdown]
# ## A vision transformer in one sitting
#
# A transformer reads a list of tokens. A **ViT** makes that list from an image: it cuts the image
# into patches, and each patch becomes a token by a linear map. Since a list has no places, each
# token is told its place by sines and cosines. Then come blocks of attention and perceptrons. In
# the end all tokens are averaged, and a linear map gives the ten logits.
#
# Here is all of it, as the library has it:

# %%
net = images.network(settings)
x = test_x[:2]
tokens = patches(x, settings.patch)
print("images ", list(x.shape))
print("patches", list(tokens.shape), f"of {settings.patch} × {settings.patch} pixels in 3 colours")
tokens = net.embed(tokens) + net.positions
print("tokens ", list(tokens.shape))
tokens = net.blocks(tokens)
logits = net.head(net.norm(tokens).mean(1))
print("logits ", list(logits.shape), "equal to net(x):", torch.equal(logits, net(x)))
with torch.device("meta"):  # shapes without memory
    paper = ViT(patch=4, dim=192, depth=6, heads=3, hidden=768)
print(f"\nThis net has {sum(p.numel() for p in net.parameters()):,} weights, that of the paper "
      f"{sum(p.numel() for p in paper.parameters()):,}.")

# %% [markdown]
# ### Exercise 1 · difficulty 2/5 · 6 minutes
#
# How many tokens does an image of `side` × `side` pixels give? And how many weights has the linear
# map that makes tokens of `dim` numbers from patches of three colours, with its biases?


# %% tags=["exercise"]
def tokens_and_weights(side, patch, dim):
    """Number of tokens, and of weights of the linear map from patches to tokens."""
    # BEGIN SOLUTION
    # STUB: tokens, weights = ..., ...
    tokens = (side // patch) ** 2
    weights = 3 * patch**2 * dim + dim
    # END SOLUTION
    return tokens, weights


# %% [markdown] tags=["hint"]
# Patches stand in rows and columns. A patch has patch² pixels of three numbers each.

# %% [markdown] tags=["expected"]
# For the paper's net, `tokens_and_weights(32, 4, 192)`, it is 64 tokens and 9,408 weights.

# %%
check.exercise_1(tokens_and_weights)

# %% [markdown]
# ## Bayesian by a prior, and nothing else
#
# The net knows nothing of distributions. The prior says how large weights are expected to be: the
# more inputs a unit has, the smaller.

# %%
model = spnb.BayesianModel(net, prior=spnb.priors.fan_in(settings.gain), likelihood="categorical")
start = spnb.MeanField(model, init_scale=settings.init_scale)
print(f"{len(start.loc):,} weights, each with a mean and a scale; prior {settings.gain:g}/√n, "
      f"S = {settings.num_samples}, T = {settings.temperature}")

# %% [markdown]
# One more number has to be told, the **temperature** T. The KL from the prior is weighed with T,
# which tempers the likelihood: it counts each image 1/T times. At T = 1, Bayes' rule, a mean-field
# posterior of such a network hardly learns. Chosen by validation were T = 0.05 at the `laptop`
# scale and for the long run below, so each image counts twenty times, and T = 0.02 at the `ci`
# scale and for the experiment with the views. What you see in this notebook is therefore much
# narrower than the posterior of Bayes' rule, and nobody should call it that.
#
# ## Views
#
# Small data sets are stretched: shift the image, mirror it, cover a part. A cat stays a cat. In
# sampling parallelism all ranks see the *same rows*. But they need not see them in the *same view*.
# `fit(..., views=...)` offers both: one view for all samples (`"shared"`), or one for each
# (`"per_sample"`). A view belongs to its seed, step and sample, as all random numbers here do. So
# it does not matter which rank computes it.

# %%
picture, step = data.train_x[:1], 3
key = Key(SEED).fold("augment", step)
fig, panels = figures.new(8.4, 3.9, rows=2, columns=5)
for row, (name, owners) in enumerate({"shared": 4 * ["shared"], "per_sample": range(4)}.items()):
    panels[row, 0].imshow(picture[0].movedim(0, -1))
    panels[row, 0].set_title("the image" if row == 0 else "")
    panels[row, 0].set_ylabel(name)
    for sample, owner in enumerate(owners):
        view = augmentation.AUGMENT(picture, key.fold(owner).generator())
        panels[row, sample + 1].imshow(view[0].movedim(0, -1))
        panels[row, sample + 1].set_title(f"sample {sample}" if row == 0 else "")
for ax in panels.flat:
    ax.set(xticks=[], yticks=[])
    ax.grid(visible=False)
figures.show(fig, alt="An image, and what four samples see of it: the same view four times in the "
             "first row, four different ones in the second.")

# %% [markdown]
# ## What should change?
#
# A gradient is an average over rows and samples. Augmentation makes it noisier: today's view is not
# yesterday's. With a view of its own each of the S samples shows another one, and the noise of the
# views averages out within a step.
#
# **Predict:** take one batch and S = 4 samples, and only the views change from step to step. By
# which factor does the variance of the gradient shrink, if each sample has its own view?

# %% tags=["aside"]
STEPS, S = scale.pick(ci=12, laptop=40, node=100), 4
batch = train[0][:64], train[1][:64]
narrow = spnb.MeanField(model, init_scale=1e-6)  # so narrow that only the views differ


def gradient_noise(q, views):
    """Variance of the gradient of the means over the steps, summed over the weights."""
    found = [spnb.gradients(q, batch, num_samples=S, step=t, views=views,
                            augment=augmentation.AUGMENT,
                            objective=spnb.ELBO(temperature=0.0))["loc"] for t in range(STEPS)]
    return torch.stack(found).var(0).sum().item()


narrow_noise = {views: gradient_noise(narrow, views) for views in ("shared", "per_sample")}
print(f"variance of the gradient from the views alone: shared {narrow_noise['shared']:.3g}, "
      f"per sample {narrow_noise['per_sample']:.3g}: a factor of "
      f"{narrow_noise['shared'] / narrow_noise['per_sample']:.2f} with S = {S}")
wide_noise = {views: gradient_noise(start, views) for views in ("shared", "per_sample")}
print(f"with the noise of the weights beside it, a factor of "
      f"{wide_noise['shared'] / wide_noise['per_sample']:.2f}")

# %% [markdown]
# **Explain.** S independent views, averaged: the variance from the views falls by S. That much is
# arithmetic. But does a calmer gradient mean *fewer epochs*? There is other noise: which rows are
# in the batch, and the weights themselves. What counts is what training does.
#
# ## The experiment
#
# The recipe `augmentation` trains pairs: the same seed, the same initial weights, the same noise
# and order of the rows, the same number of steps. Only the views differ. After each epoch it scores
# on held-out images. How many epochs until 80, 90 and 95 % of the best accuracy that the shared
# views reach? That rule was fixed before anything was run; but where these accuracies lie is read
# from the same curves. First a small live run, so that you see it work:

# %% tags=["aside"]
small = augmentation.SETTINGS["ci"]
few = datasets.photographs(small.network.num_train)
live = pool.run(augmentation.run, small, spnb.Layout(sample=2), few)[0]
print(augmentation.describe(live))

# %% [markdown]
# It is far too small to say anything. Here is the record of a large one, which took
# `python -m spnb recipe augmentation --scale laptop --ranks 2` and about half an hour: S = 4,
# T = 0.02, a prior of 3/√n.
#
# **Predict** before you look: which way does the difference go, and is it larger than its interval?

# %%
record = recorded("augmentation")
print(augmentation.describe(record))
print(f"\n{record['settings']}\n{record['provenance']}")
figure = augmentation.draw(record)
figures.footnote(figure, record["provenance"])
figures.show(figure, alt="Accuracy after each epoch of all runs in both ways, and epochs saved: "
             + "; ".join(f"at {t['accuracy']:.1%}: {augmentation.gain(t)}"
                         for t in record["targets"]) + ".")

# %% [markdown]
# **Explain.** Here the paper is right. With the same number of steps and the same price of a step,
# a view for each sample reaches every target earlier, the harder the target the more: at 95 % of
# the best accuracy after 21 epochs instead of 29. No interval touches zero. In the end it is ahead
# in accuracy and in NLL, though not in the calibration error. And it costs almost nothing: S
# augmentations of a batch instead of one.
#
# What the experiment does not say: whether it holds for long runs of large networks on all of
# CIFAR-10. This is a small network on 5,000 images, strongly augmented and far from done after 40
# epochs. Nor is it a privilege of Bayesian networks. A plain network that sees each image S times
# in a step gains as well (Hoffer et al., below). How much it would gain here was not measured: that
# control is missing. But in sampling parallelism the S passes are paid for already.
#
# ### Exercise 2 · difficulty 3/5 · 8 minutes
#
# Write the measure. `accuracy` holds the accuracy after epoch 1, 2, … When was `target` *first*
# reached? Between two epochs take the straight line; before the first epoch the accuracy counts as
# 0. None if it was never reached.


# %% tags=["exercise"]
def epochs_to(target, accuracy):
    """Epochs until the target is first reached, or None."""
    # BEGIN SOLUTION
    # STUB: return ...
    before = 0.0
    for epoch, value in enumerate(accuracy):
        if value >= target:
            return epoch + (target - before) / (value - before)
        before = value
    return None
    # END SOLUTION


# %% [markdown] tags=["hint"]
# Go through the epochs and remember the accuracy before. The first value that is large enough ends
# the search. How far along the line from the one before to it lies the target?

# %% [markdown] tags=["expected"]
# `epochs_to(0.45, [0.2, 0.4, 0.3, 0.6])` is 3.5.

# %%
check.exercise_2(epochs_to)

# %% [markdown]
# ## Side by side
#
# Now train three times: a plain network, the Bayesian one with the batch shared between two workers
# (data parallelism), and with the samples shared. All see the same batches in the same order.
#
# **Predict:** which columns will be equal in the two Bayesian rows? Which will not?

# %%
options = {"batch_size": settings.batch_size, "epochs": settings.epochs, "schedule": "cosine",
           "learning_rate": settings.learning_rate, "augment": images.AUGMENT, "seed": SEED,
           "warmup_steps": settings.warmup}
bayesian = {"objective": spnb.ELBO(temperature=settings.temperature),
            "num_samples": settings.num_samples}
strange, what = datasets.strangers()
strange_x, noise = scaling.apply(strange[:len(test_x)]), spnb.likelihoods.Categorical()
seconds, trained, known, unknown = {}, {}, {}, {}
for name, layout in {"data-parallel": spnb.Layout(data=2),
                     "sample-parallel": spnb.Layout(sample=2)}.items():
    begin = time.perf_counter()
    fitted = pool.run(spnb.fit, start, train, layout=layout, **bayesian, **options)[0]
    seconds[name], trained[name] = time.perf_counter() - begin, fitted.posterior
    known[name], unknown[name] = (
        pool.run(spnb.predict, fitted.posterior, x, num_samples=settings.test_samples,
                 layout=spnb.Layout(sample=2))[0] for x in (test_x, strange_x))
begin = time.perf_counter()
plain = train_plain(net, noise, train, weight_decay=settings.plain_decay, **options)
seconds["plain"] = time.perf_counter() - begin
known["plain"], unknown["plain"] = (predict_plain(plain, x) for x in (test_x, strange_x))

# %%
table = {}
for name, draws in known.items():
    row = scores.classification(draws, test_y, noise)
    row["AUROC"] = scores.auroc(*(scores.predictive_entropy(d, noise)
                                  for d in (draws, unknown[name])))
    table[name] = row
print(f"{'':17}" + "".join(f"{score:>11}" for score in table["plain"]) + f"{'seconds':>11}")
for name, row in table.items():
    print(f"{name:17}" + "".join(f"{v:11.4f}" for v in row.values()) + f"{seconds[name]:11.1f}")
gap = (trained["data-parallel"].loc - trained["sample-parallel"].loc).abs().max().item()
print(f"\nlargest difference of a trained mean between the two layouts: {gap:.1e}")
print(f"AUROC: {what}")

# %% [markdown]
# **Explain.** The two Bayesian rows are the same run, to rounding. Only their time differs. The
# plain network has one sample, so it is done in about 1/S of the work, on one process.
#
# Who is better? Read the accuracy and the *NLL*. On a short run like this the plain network often
# has the better of both: it learns faster per epoch. The Bayesian one gains where a network has
# time to become too sure. That is the longer run, 80 epochs on 10,000 images (`python -m spnb
# recipe images --scale laptop --ranks 2`):

# %%
long = recorded("images")
print(images.describe(long))
figure = images.draw(long)
figures.footnote(figure, long["provenance"])
figures.show(figure, alt="Loss, reliability diagram and scores. " + " ".join(
    f"{who}: accuracy {s['accuracy']:.3f}, NLL {s['nll']:.3f}, ECE {s['ece']:.3f}, AUROC "
    f"{s['auroc_entropy']:.3f}." for who, s in long["scores"].items()))

# %% [markdown]
# **Explain.** Here the Bayesian network is as accurate as the plain one, and much better
# calibrated: the plain one has become too sure, while the KL kept the other back. But be fair.
# After 50 epochs, on images held out of the training part, the two were nearly equal: NLL 0.972
# against 0.978, ECE 0.043 against 0.048, and the plain network was one percent more accurate.
# Somebody who stops in time needs no prior to be calibrated. And look at the strangers: the plain
# network tells them apart better, though neither does it well.
#
# ## Worse and worse
#
# Take the test images and make them worse, little by little. A good forecaster becomes less sure as
# fast as it becomes less right.
#
# **Predict:** which of the corruptions fools the network most: its accuracy falls, and it does not
# notice?

# %%
STRENGTHS, some = (0.0, 0.25, 0.5, 0.75, 1.0), slice(0, scale.pick(ci=100, laptop=500, node=2000))
posterior = trained["sample-parallel"]
curves = {}
for kind in CORRUPTIONS:
    curves[kind] = []
    for strength in STRENGTHS:
        x = scaling.apply(corrupt(data.test_x[some], kind, strength))
        draws = spnb.predict(posterior, x, num_samples=settings.test_samples)
        mean = draws.softmax(-1).mean(0)
        right = (mean.argmax(-1) == test_y[some]).double().mean().item()
        curves[kind].append((right, mean.amax(-1).mean().item(),
                             scores.mutual_information(draws, noise).mean().item()))
fig, panels = figures.new(10.5, 3.4, columns=3)
for ax, place, label in zip(panels, range(3), ("accuracy", "confidence less accuracy",
                                               "mutual information (nats)"), strict=True):
    for index, (kind, points) in enumerate(curves.items()):
        values = [p[1] - p[0] if place == 1 else p[place] for p in points]
        ax.plot(STRENGTHS, values, **figures.look(index), label=kind)
    ax.set(xlabel="strength", ylabel=label)
panels[1].axhline(0, color=figures.GREY, lw=1)
panels[0].legend()
figures.show(fig, alt="Accuracy, over-confidence and mutual information by strength. At full "
             "strength: " + "; ".join(f"{k}: accuracy {p[-1][0]:.2f}, confidence {p[-1][1]:.2f}"
                                      for k, p in curves.items()) + ".")

# %% [markdown]
# **Explain.** Where the middle panel lies above zero, the network is more sure than it is right. It
# does notice some of the corruptions and is fooled by others. A Bayesian network is no guarantee.
# It doubts what its *samples* doubt, and if all of them learned to look at the same colours, all of
# them are fooled together.
#
# ### Exercise 3 · difficulty 3/5 · 8 minutes
#
# The right panel shows what the samples disagree on. Write it: the entropy of the mean prediction
# minus the mean entropy of the samples. `p` are probabilities `[S, N, classes]`, the result is
# `[N]`.


# %% tags=["exercise"]
def disagreement(p):
    """Mutual information of class and weights, in nats ``[N]``."""
    # BEGIN SOLUTION
    # STUB: value = ...
    total = torch.special.entr(p.mean(0)).sum(-1)
    value = total - torch.special.entr(p).sum(-1).mean(0)
    # END SOLUTION
    return value


# %% [markdown] tags=["hint"]
# `torch.special.entr(p)` is -p log p, and 0 where p is 0. Once average first and then take the
# entropy; once the other way round.

# %% [markdown] tags=["expected"]
# Two samples that are sure of different classes disagree by log 2 = 0.693. Two samples that both
# say "one half each" do not disagree at all.

# %%
check.exercise_3(disagreement)

# %% [markdown]
# ## Something else entirely
#
# And what of images of something else? None of the ten classes is right. Nobody can ask for a right
# answer. But one can ask for *doubt*: more of it than for the test images.

# %%
print(what)
known_draws, strange_draws = known["sample-parallel"], unknown["sample-parallel"]
fig, panels = figures.new(9.2, 3.2, columns=2)
told = []
for ax, (name, measure) in zip(panels, {"entropy": scores.predictive_entropy,
                                        "mutual information": scores.mutual_information}.items(),
                               strict=True):
    here, there = (measure(d, noise) for d in (known_draws, strange_draws))
    area = scores.auroc(here, there)
    told.append(f"{name}: AUROC {area:.3f}")
    bins = torch.linspace(0, float(torch.cat([here, there]).max()), 25)
    ax.hist(here, bins, density=True, color=figures.BLUE, alpha=0.5, label="test images")
    ax.hist(there, bins, density=True, histtype="step", color=figures.VERMILLION, lw=2,
            label="strangers")
    ax.set(xlabel=f"{name} (nats)", ylabel="density", title=f"AUROC {area:.3f}")
panels[0].legend()
figures.show(fig, alt="Histograms of doubt for test images and strangers. " + "; ".join(told))
print("; ".join(told))

# %% [markdown]
# **Explain.** The **AUROC** is the probability that a stranger gets more doubt than a test image: 1
# is perfect, 0.5 a coin. Below 0.5 the strangers get *less* of it than the test images. Compare the
# two measures. The entropy asks "is it hard to say?", the mutual information "do the samples
# disagree?". The second sounds like the right question. But it can only find what the samples
# disagree on, and a narrow posterior disagrees on little. Here the simple entropy is often the
# better detector, and neither has to be a good one: a photograph of a hand before an even wall is
# *simpler* than most of CIFAR-10. Report both.
#
# ### Exercise 4 · difficulty 3/5 · 8 minutes
#
# Write the AUROC as what it is: of all pairs of a known and an unknown image, the share in which
# the unknown one has the larger value. A tie counts one half.


# %% tags=["exercise"]
def share_of_pairs(known, unknown):
    """Share of pairs in which the unknown one is larger, of values ``[N]`` and ``[M]``."""
    # BEGIN SOLUTION
    # STUB: share = ...
    more = (unknown[:, None] > known[None, :]).double()
    ties = (unknown[:, None] == known[None, :]).double()
    share = (more + ties / 2).mean()
    # END SOLUTION
    return share


# %% [markdown] tags=["hint"]
# `unknown[:, None] > known[None, :]` compares all pairs at once, `[M, N]`.

# %% [markdown] tags=["expected"]
# For `known = [1, 2]` and `unknown = [2, 3]` it is (1 + 0.5 + 1 + 1) / 4 = 0.875.

# %%
check.exercise_4(share_of_pairs)

# %% [markdown]
# ## The image explorer
#
# **Predict – move – explain.** Take image 0, and before you move: at which strength of *blur* will
# the first sample change its mind? Then do the same with *rotation*. Find an image of which the
# model is sure and wrong. Do the samples disagree there, or are they wrong together?

# %%
def sixteen(pictures):
    """Class probabilities of sixteen samples, always the same ones."""
    return spnb.predict(posterior, scaling.apply(pictures), num_samples=16, seed=SEED).softmax(-1)


image_explorer(data.test_x[:200], test_y[:200], data.names, sixteen)

# %%
pool.close()

# %% [markdown]
# ## You can now
#
# - read a vision transformer in one sitting, and count its tokens and weights
# - make it Bayesian by a prior, and nothing else
# - show one view of an image to all samples or to each its own, and say what that changes
# - measure epochs to a target with a confidence interval, and report what comes out
# - hold plain, data-parallel and sample-parallel training side by side
# - tell strange images from known ones by entropy and by mutual information, and judge how well
#
# **Next:** notebook 08 forecasts electricity.
#
# ## References
#
# - A. Dosovitskiy et al.: *An Image is Worth 16x16 Words*,
#   [arXiv 2010.11929](https://arxiv.org/abs/2010.11929), 2020: the ViT.
# - L. Beyer, X. Zhai, A. Kolesnikov: *Better Plain ViT Baselines for ImageNet-1k*,
#   [arXiv 2205.01580](https://arxiv.org/abs/2205.01580), 2022: the simple form used here.
# - E. Hoffer et al.: *Augment Your Batch*, [arXiv 1901.09335](https://arxiv.org/abs/1901.09335),
#   2019: several views of an image in one step, for plain networks.
# - D. Hendrycks, T. Dietterich: *Benchmarking Neural Network Robustness to Common Corruptions and
#   Perturbations*, [arXiv 1903.12261](https://arxiv.org/abs/1903.12261), 2019.
# - N. Houlsby et al.: *Bayesian Active Learning for Classification and Preference Learning*,
#   [arXiv 1112.5745](https://arxiv.org/abs/1112.5745), 2011: the mutual information.
# - A. Krizhevsky: *Learning Multiple Layers of Features from Tiny Images*, 2009 (the data).
# - A. Mavi: *A New Dataset and Proposed Convolutional Neural Network Architecture for
#   Classification of American Sign Language Digits*,
#   [arXiv 2011.08927](https://arxiv.org/abs/2011.08927), 2020 (the strangers).
# - Asena Karolin Özdemir, Lars H. Heyen, Arvid Weyrauch, Achim Streit, Markus Götz, Charlotte
#   Debus: *Sampling Parallelism for Fast and Efficient Bayesian Learning*,
#   [arXiv 2604.04736](https://arxiv.org/abs/2604.04736), 2026.
