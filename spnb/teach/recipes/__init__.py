"""Recipes: workloads of the paper and a benchmark, each one configuration that runs anywhere.

    python -m spnb recipe images --scale ci --ranks 2
    python -m torch.distributed.run --nproc-per-node 8 -m spnb recipe images --scale node

| recipe | workload |
|---|---|
| `images` | a vision transformer on CIFAR-10 |
| `augmentation` | the same: one view for all samples against a view for each, over several seeds |
| `load` | a perceptron on the electricity load of France |
| `weather` | a Swin transformer on fields of air temperature |
| `regression` | not of the paper: the standard benchmark of Bayesian regression, all methods |

The scale ``node`` carries the sizes of the paper (arXiv 2604.04736) as far as they are known; it
was not run as a whole: the authors of this course had one GPU for some minutes (`docs/paper.md`).
"""

from spnb.teach.recipes.base import NAMES, Recipe, execute, recipe, recorded

__all__ = ["NAMES", "Recipe", "execute", "recipe", "recorded"]
