"""Data sets of the course: what comes inside installed packages, and files that are fetched once.

| module | holds |
|---|---|
| `files` | where files are found, fetched and checked |
| `scaling` | scalings, from the training part alone |
| `mauna_loa`, `images` | Mauna Loa CO2 and handwritten digits: no network needed |
| `cifar`, `unseen` | CIFAR-10, and images of something else |
| `entsoe`, `ett` | electricity load of France; a transformer's temperature |
| `air` | air temperature over North America |
| `known` | the list of all files |
| `stand_ins` | what a notebook takes where its data cannot be had |
"""

from spnb.teach.datasets.air import Fields, air_temperature
from spnb.teach.datasets.cifar import cifar10
from spnb.teach.datasets.entsoe import Load, load
from spnb.teach.datasets.ett import Table, etth1
from spnb.teach.datasets.files import DataUnavailableError
from spnb.teach.datasets.images import Images, digits
from spnb.teach.datasets.known import known_files
from spnb.teach.datasets.mauna_loa import Series, co2
from spnb.teach.datasets.scaling import Scaling
from spnb.teach.datasets.stand_ins import air_fields, load_record, photographs
from spnb.teach.datasets.unseen import hands, strangers

__all__ = [
    "DataUnavailableError",
    "Fields",
    "Images",
    "Load",
    "Scaling",
    "Series",
    "Table",
    "air_fields",
    "air_temperature",
    "cifar10",
    "co2",
    "digits",
    "etth1",
    "hands",
    "known_files",
    "load",
    "load_record",
    "photographs",
    "strangers",
]
