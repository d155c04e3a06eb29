"""What a run is made of, in words that another process can compare.

Tensors and numbers are described by their values, functions by their code and by what it refers to,
objects by their class and attributes; what an installed library holds, by its name. Nothing in a
description depends on the process: no address, no hash of Python's, no place of a file.

| module | holds |
|---|---|
| `code` | what functions and classes do |
| `trees` | any value as a tree of numbers and words |
| `compare` | where two trees differ |
"""

from spnb.run.identity.compare import compare, listed
from spnb.run.identity.trees import Made, describe

__all__ = ["Made", "compare", "describe", "listed"]
