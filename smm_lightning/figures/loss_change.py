"""What training does to the loss of every image."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from smm_lightning.figures.registry import Drawn, figure
from smm_lightning.figures.style import COLUMN, new_figure, write_title
from smm_lightning.figures.trained import Group

_FULLY_CONNECTED = "fc"  # the paper's reference, which is no method of ours


@figure(
    "loss_change",
    of="group",
    caption="Final minus initial loss of training images under each method, and the share whose "
    "loss rises (as Figure 2); fc is a linear layer, trained on the frozen features.",
)
def loss_change(group: Group) -> Drawn:
    """Figure 2. The initial loss is that of the prompt at its start with the mapping counted there.

    The data are the changes of every image, the table ``summary`` the share that rises (%).
    """
    group.require_same_images()
    runs = group.trained
    chosen = runs[0].drawn("train", group.limit)
    changes: dict[str, NDArray[np.float32]] = {}
    for trained in runs:
        first, last = trained.first_answers("train", chosen), trained.answers("train", chosen)
        changes[trained.method] = (last.losses - first.losses).numpy()
    _, features, targets = group.bare.without_prompt("train", chosen)
    changes[_FULLY_CONNECTED] = fully_connected_change(features, targets).numpy()
    looks = {name: (look.label, look.colour) for name, look in group.looks.items()}
    looks[_FULLY_CONNECTED] = (_FULLY_CONNECTED, "#999999")
    rising = {method: 100 * float((change > 0).mean()) for method, change in changes.items()}
    drawn = new_figure(COLUMN, 0.75 * len(changes) + 0.5)
    axes = drawn.subplots(len(changes), 1, sharex=True, squeeze=False)[:, 0]
    low, high = np.percentile(np.concatenate(list(changes.values())), (0.5, 99.5))
    edges = np.linspace(min(low, -0.1), max(high, 0.1), 61)
    for axis, (method, change) in zip(axes, changes.items(), strict=True):
        label, colour = looks[method]
        axis.hist(np.clip(change, edges[0], edges[-1]), edges, color=colour)
        axis.axvline(0, color="black", lw=0.8)
        text = f"{label}: {rising[method]:.1f} % rise"
        axis.text(0.01, 0.85, text, transform=axis.transAxes, va="top", fontsize=6)
        axis.set_yticks([])
    axes[-1].set_xlabel("final loss minus initial loss of a training image")
    write_title(drawn, f"{group.title_of_trained}, n = {len(chosen):,} training images")
    summary = {"method": [*rising], "share that rises (%)": [*rising.values()]}
    return Drawn(drawn, changes, {"summary": summary}, group.keys_of_trained)


def fully_connected_change(features: Tensor, targets: Tensor, epochs: int = 20) -> Tensor:
    """Final minus initial loss (N,) of a linear layer on frozen features, trained by Adam.

    Args:
        features: (N, D).
        targets: (N,).
        epochs: of training, batches of 256, learning rate 0.01.
    """
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layer = nn.Linear(features.shape[1], int(targets.max()) + 1)
    features = features.clone()  # out of inference mode

    def losses() -> Tensor:
        with torch.no_grad():
            return nn.functional.cross_entropy(layer(features), targets, reduction="none")

    first = losses()
    adam = torch.optim.Adam(layer.parameters(), lr=0.01)
    for _ in range(epochs):
        for chosen in torch.randperm(len(targets), generator=generator).split(256):
            adam.zero_grad()
            nn.functional.cross_entropy(layer(features[chosen]), targets[chosen]).backward()
            adam.step()
    return losses() - first
