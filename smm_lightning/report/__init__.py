"""Tables of a grid from its result files. Imports no torch, no Lightning, no Hydra."""
