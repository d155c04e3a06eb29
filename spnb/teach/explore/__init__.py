"""Explorables: a few controls, and a figure that follows them, one a file."""
