"""Between the shell and a training: configuration, folders, states. Imports no torch."""
