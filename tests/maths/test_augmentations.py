"""Augmentations: what they may change, by how much, and whose random numbers they use."""

from __future__ import annotations

import pytest
import torch

import spnb
from spnb.maths.augmentations import Augmentation, Chain, Crop, Erase, Flip, Jitter

ALL = (Crop(), Crop(3, "reflect"), Flip(), Erase(1.0), Jitter(), Chain(Crop(), Flip(), Jitter()))


def images(number: int = 64) -> torch.Tensor:
    return torch.rand(number, 3, 16, 12, generator=torch.Generator().manual_seed(1))


def generator(name: str = "a") -> torch.Generator:
    return spnb.Key(0).fold(name).generator()


@pytest.mark.parametrize("augment", ALL, ids=repr)
def test_the_generator_names_the_view(augment: Augmentation) -> None:
    x = images()
    before = x.clone()
    one, again, other = (augment(x, generator(name)) for name in "aab")
    assert torch.equal(one, again) and not torch.equal(one, other)
    assert torch.equal(x, before), "the images handed in are left alone"
    assert one.shape == x.shape and one.dtype == x.dtype
    torch.manual_seed(0)
    state = torch.get_rng_state()
    augment(x, generator())
    assert torch.equal(torch.get_rng_state(), state), "the global generator is left alone"


def test_a_crop_is_one_of_all_shifts() -> None:
    x = images(400)
    found = Crop(2)(x, generator())
    padded = torch.nn.functional.pad(x, (2, 2, 2, 2))
    shifts = {(i, j): padded[:, :, i : i + 16, j : j + 12] for i in range(5) for j in range(5)}
    hits = {s: (found == view).flatten(1).all(1) for s, view in shifts.items()}
    assert (torch.stack(list(hits.values())).sum(0) == 1).all()
    assert all(5 <= hit.sum() <= 30 for hit in hits.values()), "all are about equally likely"


def test_a_flip_is_a_mirror_image_half_of_the_time() -> None:
    x = images(400)
    found = Flip()(x, generator())
    mirrored = (found == x.flip(-1)).flatten(1).all(1)
    same = (found == x).flatten(1).all(1)
    assert (mirrored ^ same).all() and 160 <= mirrored.sum() <= 240
    assert torch.equal(Flip(0.0)(x, generator()), x)
    assert torch.equal(Flip(1.0)(x, generator()), x.flip(-1))


def test_an_erased_part_is_a_rectangle_of_the_right_size() -> None:
    x = images(300)
    found = Erase(1.0, area=(0.1, 0.3), aspect=2.0, value=-1.0)(x, generator())
    covered = (found == -1).all(1)
    assert torch.equal(
        found[~covered.unsqueeze(1).expand_as(x)], x[~covered.unsqueeze(1).expand_as(x)]
    )
    rows, columns = covered.any(2), covered.any(1)
    assert torch.equal(covered, rows.unsqueeze(2) & columns.unsqueeze(1)), "rectangles"
    areas = covered.double().mean((1, 2))
    assert 0.06 < areas.min() and areas.max() < 0.36  # whole pixels
    assert areas.mean() == pytest.approx(0.2, abs=0.02)
    ratio = (rows.sum(1) / 16) / (columns.sum(1) / 12)
    assert 0.4 < ratio.min() and ratio.max() < 2.5
    half = Erase(0.5)(x, generator())
    assert 110 <= (half != x).flatten(1).any(1).sum() <= 190


def test_jitter_keeps_grey_grey_and_the_range() -> None:
    x = images(200)
    found = Jitter(0.5, 0.5, 0.5)(x, generator())
    assert found.min() >= 0 and found.max() <= 1
    grey = x[:, :1].expand(-1, 3, -1, -1)
    changed = Jitter(0.5, 0.5, 0.5)(grey, generator())
    torch.testing.assert_close(changed, changed[:, :1].expand(-1, 3, -1, -1))
    assert torch.equal(Jitter(0.0, 0.0, 0.0)(x, generator()), x) or torch.allclose(
        Jitter(0.0, 0.0, 0.0)(x, generator()), x, atol=1e-6
    )
    brighter = Jitter(0.5, 0.0, 0.0)(0.5 * x, generator()).mean((1, 2, 3)) / (0.5 * x).mean(
        (1, 2, 3)
    )
    assert 0.5 <= brighter.min() < 0.6 and 1.4 < brighter.max() <= 1.5


def test_bad_arguments() -> None:
    for make, message in (
        (lambda: Crop(-1), "pixels=-1"),
        (lambda: Flip(1.5), "probability=1.5"),
        (lambda: Erase(area=(0.5, 0.1)), "two rising numbers"),
        (lambda: Erase(aspect=0.5), "aspect=0.5"),
        (lambda: Jitter(brightness=2), "between 0 and 1"),
        (lambda: Jitter()(torch.zeros(2, 1, 4, 4), generator()), "needs 3 colours"),
    ):
        with pytest.raises(ValueError, match=message):
            make()


@pytest.mark.parametrize("views", ["shared", "per_sample"])
@pytest.mark.pool
def test_layouts_see_the_same_views(views: str) -> None:
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 16 * 12, 4)).double()
    posterior = spnb.MeanField(spnb.BayesianModel(net, likelihood="categorical"))
    data = images(10).double(), torch.arange(10) % 4
    options = {"num_samples": 5, "augment": ALL[-1], "views": views}
    serial = spnb.gradients(posterior, data, **options)
    with spnb.WorkerPool(2) as pool:
        for layout in (spnb.Layout(sample=2), spnb.Layout(data=2)):
            found = pool.run(spnb.gradients, posterior, data, layout=layout, **options)[0]
            for name, value in serial.items():
                torch.testing.assert_close(found[name], value, rtol=1e-10, atol=1e-12)
