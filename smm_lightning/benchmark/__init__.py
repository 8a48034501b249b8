"""Measurements: never part of the tests, each in a process of its own, sides in turns."""
