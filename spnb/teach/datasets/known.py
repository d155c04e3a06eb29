"""All files of the course's data sets, wherever they are."""

from __future__ import annotations

from spnb.teach.datasets import air, cifar, entsoe, ett, unseen
from spnb.teach.datasets.files import File


def known_files() -> tuple[File, ...]:
    """Each file that a notebook or a recipe may ask for."""
    return (
        cifar.FULL,
        cifar.SUBSET,
        unseen.HANDS,
        *entsoe.FILES.values(),
        ett.FILE,
        air.FILE,
    )
