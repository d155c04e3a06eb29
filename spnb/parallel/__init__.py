"""Parallel floor: layouts, keyed randomness, collectives, devices and the worker pool.

Nothing here knows of priors or posteriors.
"""
