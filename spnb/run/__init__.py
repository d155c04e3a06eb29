"""Run floor: fit, predict, gradients and scores, over any layout of processes."""
