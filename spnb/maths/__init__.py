"""Maths floor: priors, likelihoods, models, posteriors, objectives, scores.

Nothing here knows of processes, widgets or figures.
"""
