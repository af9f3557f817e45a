"""Sweeps: grids of runs, and the table of their results."""
