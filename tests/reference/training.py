"""A slow, obvious twin of a whole training: the paper's algorithm 1 on PIL images, in float64.

Plain layers, one optimiser for delta and one for phi, as published. Nothing of the package is used.
"""

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.optim import Adam
from torch.optim.lr_scheduler import MultiStepLR
from torchvision import transforms
from torchvision.transforms import functional as published

from tests.reference import equations


class MaskGenerator(nn.Module):
    """Five layers, the first three pooled."""

    def __init__(self, widths=(8, 16, 32, 64), poolings=3):
        super().__init__()
        inputs = (3, *widths[:-1])
        pairs = zip(inputs, widths, strict=True)
        self.convolutions = nn.ModuleList(nn.Conv2d(i, o, 3, padding=1) for i, o in pairs)
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in widths)
        self.last = nn.Conv2d(widths[-1], 3, 3, padding=1)
        self.poolings = poolings

    def forward(self, images):
        for layer, (convolution, norm) in enumerate(
            zip(self.convolutions, self.norms, strict=True)
        ):
            images = functional.relu(norm(convolution(images)))
            if layer < self.poolings:
                images = functional.max_pool2d(images, 2)
        return self.last(images)


class Prompt(nn.Module):
    """norm(x) + delta * up(f_mask(norm(x))) (equation 3)."""

    def __init__(self, size, mean, std):
        super().__init__()
        self.normalize = transforms.Normalize(mean, std)
        self.delta = nn.Parameter(torch.zeros(3, size, size))
        self.generator = MaskGenerator()

    def forward(self, images):
        images = self.normalize(images)
        mask = functional.interpolate(self.generator(images), scale_factor=8, mode="nearest")
        return images + self.delta * mask


def training_image(image, size, top, left, mirrored):
    """Resize, crop, flip, by PIL, as published; the random choices are given."""
    large = transforms.Resize((size + 32, size + 32))(image)
    crop = published.crop(large, top, left, size, size)
    return published.to_tensor(published.hflip(crop) if mirrored else crop).double()


def test_image(image, size):
    return published.to_tensor(transforms.Resize((size, size))(image)).double()


test_image.__test__ = False


def one_to_one(classes):
    """How a one-to-one mapping is taken from logits (N, S) and targets (N,), and how it is used."""

    def fit(logits, targets):
        predicted = logits.argmax(1).tolist()
        return equations.greedy(
            equations.counts(predicted, targets.tolist(), logits.shape[1], classes)
        )

    return fit, lambda logits, mapping: logits[:, mapping]


def bayesian(classes, **options):
    """The same of BLM, and of BLM+ with ``top``."""

    def fit(logits, targets):
        return equations.bayesian_mapping(logits.numpy(), targets.tolist(), classes, **options)

    return fit, lambda logits, weights: logits @ torch.from_numpy(weights)


def answers(prompt, network, images):
    """Source logits in eval mode."""
    prompt.eval()
    with torch.no_grad():
        logits = network(prompt(images))
    prompt.train()
    return logits


def train(prompt, network, data, *, epochs, milestones, kind, refit, lr):
    """Yields, for every epoch, its mapping, the losses of its steps, and the test accuracy.

    ``data(epoch)`` answers with the images (N, 3, S, S), targets (N,), the batches as lists of
    numbers, the test images and the test targets. ``refit``: ``once``, ``epoch``, or ``running``:
    after an epoch, from the logits of its training steps, as BayesianLM's ``train_vm_fast.py``.
    """
    both = [Adam([prompt.delta], lr), Adam(prompt.generator.parameters(), lr)]
    schedules = [MultiStepLR(adam, milestones, 0.1) for adam in both]
    fit, use = kind
    mapping = None
    for epoch in range(epochs):
        images, targets, batches, test_images, test_targets = data(epoch)
        if mapping is None or refit == "epoch":
            mapping = fit(answers(prompt, network, images), targets)
        losses, seen = [], []
        for batch in batches:
            source = network(prompt(images[batch]))
            seen.append((source.detach(), targets[batch]))
            loss = functional.cross_entropy(use(source, mapping), targets[batch])
            for adam in both:
                adam.zero_grad()
            loss.backward()
            for adam in both:
                adam.step()
            losses.append(loss.item())
        for schedule in schedules:
            schedule.step()
        predicted = use(answers(prompt, network, test_images), mapping).argmax(1)
        accuracy = float(np.mean((predicted == test_targets).numpy()))
        yield mapping.tolist(), losses, accuracy
        if refit == "running":
            logits, of_them = zip(*seen, strict=True)
            mapping = fit(torch.cat(logits), torch.cat(of_them))
