"""Slow, obvious twins of the equations, in loops over NumPy arrays; nothing here is shared."""

import math

import numpy as np


def patchwise(mask, size, patch):
    """Every pixel takes the value of its patch; beyond the last whole patch, of the closest one."""
    batch, channels, height, width = mask.shape
    out = np.empty((batch, channels, size, size), mask.dtype)
    for row in range(size):
        for column in range(size):
            patch_row = min(row // patch, height - 1)
            patch_column = min(column // patch, width - 1)
            out[:, :, row, column] = mask[:, :, patch_row, patch_column]
    return out


def frame(size, width):
    """1 where a pixel is closer than ``width`` to the border."""
    out = np.zeros((3, size, size), np.float32)
    for row in range(size):
        for column in range(size):
            if min(row, column, size - 1 - row, size - 1 - column) < width:
                out[:, row, column] = 1
    return out


def normalize(images, mean, std):
    out = np.empty_like(images)
    for channel in range(3):
        out[:, channel] = (images[:, channel] - mean[channel]) / std[channel]
    return out


def pad(images, pattern, size, mean, std):
    """The image inside, sigmoid(pattern) around it, then normalised."""
    batch, _, native, _ = images.shape
    before = (size - native + 1) // 2
    out = np.empty((batch, 3, size, size), np.float32)
    for row in range(size):
        for column in range(size):
            y, x = row - before, column - before
            if 0 <= y < native and 0 <= x < native:
                out[:, :, row, column] = images[:, :, y, x]
            else:
                out[:, :, row, column] = 1 / (1 + np.exp(-pattern[:, row, column]))
    return normalize(out, mean, std)


def convolution(images, weight, bias):
    """3x3, stride 1, padding 1."""
    batch, _, height, width = images.shape
    padded = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)))
    out = np.empty((batch, len(weight), height, width), np.float64)
    for row in range(height):
        for column in range(width):
            window = padded[:, :, row : row + 3, column : column + 3]
            out[:, :, row, column] = np.einsum("bchw,ochw->bo", window, weight) + bias
    return out


def batch_norm(features, weight, bias, mean, var, eps=1e-5):
    out = np.empty_like(features)
    for channel in range(features.shape[1]):
        scaled = (features[:, channel] - mean[channel]) / math.sqrt(var[channel] + eps)
        out[:, channel] = scaled * weight[channel] + bias[channel]
    return out


def max_pool(features):
    batch, channels, height, width = features.shape
    out = np.empty((batch, channels, height // 2, width // 2), features.dtype)
    for row in range(height // 2):
        for column in range(width // 2):
            window = features[:, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            out[:, :, row, column] = window.max((2, 3))
    return out


def mask_generator(images, blocks, head, poolings):
    """``blocks``: (weight, bias, norm weight, norm bias, running mean, running var) a layer."""
    features = images
    for layer, (weight, bias, gamma, beta, mean, var) in enumerate(blocks):
        features = convolution(features, weight, bias)
        features = np.maximum(batch_norm(features, gamma, beta, mean, var), 0)
        if layer < poolings:
            features = max_pool(features)
    return features.mean(1, keepdims=True) if head is None else convolution(features, *head)


def counts(predicted, targets, source_classes, classes):
    d = np.zeros((source_classes, classes), np.int64)
    for s, t in zip(predicted, targets, strict=True):
        d[s, t] += 1
    return d


def greedy(d):
    """Strike out rows and columns of a copy, exactly as the text of the algorithm says."""
    d = d.astype(np.int64).copy()
    mapping = np.full(d.shape[1], -1)
    free = set(range(d.shape[0]))
    while (mapping < 0).any():
        s, t = np.unravel_index(d.argmax(), d.shape)
        if d[s, t] < 0:  # everything is struck out
            t = int(np.flatnonzero(mapping < 0)[0])
            s = min(free)
        mapping[t] = s
        free.discard(int(s))
        d[s, :] = -1
        d[:, t] = -1
    return mapping


def learning_rates(lr, decay, milestones, epochs):
    rates = []
    for epoch in range(epochs):
        if epoch in milestones:
            lr *= decay
        rates.append(lr)
    return rates


def bayesian_mapping(logits, targets, classes, smoothing=1.0, top=None, unit=None):
    """BLM, and BLM+ with ``top``: sample by sample, class by class; masses in whole units."""
    d = np.zeros((logits.shape[1], classes))
    for row, t in zip(logits.astype(np.float64), targets, strict=True):
        if top is None:
            d[np.flatnonzero(row == row.max())[0], t] += 1
            continue
        mass = np.exp(row - row.max())
        mass /= mass.sum()
        for s in sorted(range(len(row)), key=lambda s: (-mass[s], s))[:top]:
            d[s, t] += mass[s] if unit is None else np.round(mass[s] / unit) * unit
    weights = np.zeros_like(d)
    for s in range(len(d)):
        weights[s] = d[s] / (d[s].sum() + smoothing)
    for t in range(classes):
        if weights[:, t].sum() > 0:
            weights[:, t] /= weights[:, t].sum()
    return weights
