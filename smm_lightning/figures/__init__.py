"""Figures of the paper, drawn from trained runs; each saves the numbers that it shows beside it."""
