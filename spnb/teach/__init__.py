"""The teaching floor: exercise checks, plots, explorables and the data sets of the course."""
