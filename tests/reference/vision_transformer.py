"""ViT-B/32 written down from the names of the published weight file, one head at a time."""

import math

import torch
from torch.nn import functional

WIDTH, DEPTH, HEADS, HIDDEN, PATCH = 768, 12, 12, 3072, 32


def random_state(patches, classes=1000, seed=0):
    """A state dict with the names and shapes of ``B_32_imagenet1k.pth`` for ``patches`` patches."""
    shapes = {
        "class_token": (1, 1, WIDTH),
        "positional_embedding.pos_embedding": (1, patches + 1, WIDTH),
        "patch_embedding.weight": (WIDTH, 3, PATCH, PATCH),
        "patch_embedding.bias": (WIDTH,),
        "norm.weight": (WIDTH,),
        "norm.bias": (WIDTH,),
        "fc.weight": (classes, WIDTH),
        "fc.bias": (classes,),
    }
    for layer in range(DEPTH):
        block = f"transformer.blocks.{layer}"
        for part in ("attn.proj_q", "attn.proj_k", "attn.proj_v", "proj"):
            shapes[f"{block}.{part}.weight"] = (WIDTH, WIDTH)
            shapes[f"{block}.{part}.bias"] = (WIDTH,)
        for norm in ("norm1", "norm2"):
            shapes[f"{block}.{norm}.weight"] = shapes[f"{block}.{norm}.bias"] = (WIDTH,)
        shapes[f"{block}.pwff.fc1.weight"] = (HIDDEN, WIDTH)
        shapes[f"{block}.pwff.fc1.bias"] = (HIDDEN,)
        shapes[f"{block}.pwff.fc2.weight"] = (WIDTH, HIDDEN)
        shapes[f"{block}.pwff.fc2.bias"] = (WIDTH,)
    generator = torch.Generator().manual_seed(seed)
    return {n: torch.randn(shape, generator=generator) * 0.03 for n, shape in shapes.items()}


def logits(state, images):
    """(B, 3, S, S) to (B, classes)."""

    def linear(x, name):
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def norm(x, name):
        weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
        return functional.layer_norm(x, (WIDTH,), weight, bias, eps=1e-6)

    weight, bias = state["patch_embedding.weight"], state["patch_embedding.bias"]
    patches = functional.conv2d(images, weight, bias, stride=PATCH).flatten(2).transpose(1, 2)
    token = state["class_token"].expand(len(images), -1, -1)
    x = torch.cat([token, patches], 1) + state["positional_embedding.pos_embedding"]
    for layer in range(DEPTH):
        block = f"transformer.blocks.{layer}"
        normed = norm(x, f"{block}.norm1")
        q, k, v = (linear(normed, f"{block}.attn.proj_{part}") for part in "qkv")
        heads = []
        for head in range(HEADS):
            own = slice(head * WIDTH // HEADS, (head + 1) * WIDTH // HEADS)
            scores = q[..., own] @ k[..., own].transpose(1, 2) / math.sqrt(WIDTH // HEADS)
            heads.append(scores.softmax(-1) @ v[..., own])
        x = x + linear(torch.cat(heads, -1), f"{block}.proj")
        hidden = functional.gelu(linear(norm(x, f"{block}.norm2"), f"{block}.pwff.fc1"))
        x = x + linear(hidden, f"{block}.pwff.fc2")
    return linear(norm(x, "norm")[:, 0], "fc")
