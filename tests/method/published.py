"""Names of the published modules' state to ours."""

import re

import torch

from smm_lightning.method import SampleSpecificMask

IDENTITY = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}  # inputs are normalised already


def our_state(state):
    """``program`` and ``priority.*`` of ``InstancewiseVisualPrompt`` to our names."""
    renamed = {}
    for name, value in state.items():
        if name == "program":
            renamed["pattern"] = value
            continue
        kind, number, rest = re.fullmatch(r"priority\.(conv|bn)(\d)\.(\w+)", name).groups()
        if number == "6":
            renamed[f"mask_generator.head.{rest}"] = value
        else:
            part = {"conv": 0, "bn": 1}[kind]
            renamed[f"mask_generator.blocks.{int(number) - 1}.{part}.{rest}"] = value
    return renamed


def load_twin(twin, state):
    """Our state into ``tests.reference.training.Prompt``."""
    renamed = {}
    for name, value in state.items():
        layer = re.fullmatch(r"mask_generator\.blocks\.(\d)\.([01])\.(\w+)", name)
        if layer is None:
            own = name.replace("pattern", "delta").replace("mask_generator.head", "generator.last")
        else:
            number, part, rest = layer.groups()
            own = f"generator.{('convolutions', 'norms')[int(part)]}.{number}.{rest}"
        renamed[own] = value
    twin.load_state_dict(renamed)


def published_prompt(official, case):
    """Our module with the state of a case of the reference vectors."""
    size, layers, patch, channels = official[f"{case}/config"].tolist()
    prompt = SampleSpecificMask(
        size, **IDENTITY, patch_size=patch, layers=layers, channels=channels
    )
    prefix = f"{case}/state/"
    state = {k.removeprefix(prefix): v for k, v in official.items() if k.startswith(prefix)}
    state = {name: torch.as_tensor(value) for name, value in our_state(state).items()}
    prompt.load_state_dict(state)
    return prompt
