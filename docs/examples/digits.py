"""Loaders for the examples: the handwritten digits inside scikit-learn, which need no download."""

import torch
from sklearn.datasets import load_digits
from torch.nn.functional import interpolate
from torch.utils.data import DataLoader, TensorDataset

digits = load_digits()
images = torch.from_numpy(digits.images).float().unsqueeze(1) / 16  # (1797, 1, 8, 8) in [0, 1]
images = interpolate(images, size=64, mode="bilinear").clamp(0, 1).repeat(1, 3, 1, 1)
targets = torch.from_numpy(digits.target)
names = list("0123456789")


def loaders(of=lambda target: target, train=500, test=200):
    """Batches of images (B, 3, 64, 64) and targets (B,), to train with and to test with."""
    sets = [TensorDataset(images[:train], of(targets[:train]))]
    sets += [TensorDataset(images[-test:], of(targets[-test:]))]
    return (DataLoader(s, batch_size=64, shuffle=s is sets[0], generator=_order()) for s in sets)


def accuracy(model, loader):
    """Share of right answers."""
    right = [model.probabilities(x).argmax(1).eq(y).float().mean() for x, y in loader]
    return torch.stack(right).mean().item()


def _order():
    return torch.Generator().manual_seed(0)
