"""The small CNN that sees an image and answers with its mask (paper section 3.2, figure 8)."""

from torch import Tensor, nn

from smm_lightning.errors import problem
from smm_lightning.method.conv_block import ConvBlock


class MaskGenerator(nn.Module):
    """3x3 convolutions, each but the last with BatchNorm and ReLU, the first ones max-pooled.

    The output is the raw last convolution: signed, no sigmoid. With ``channels=1`` there is no last
    convolution: the mask is the mean over the channels of the last ReLU features, never negative.

    Source: paper equation 3 and appendix; published ``instance_model.py``, class ``AttributeNet``.

    Args:
        layers: number of convolutions, the last one included; 5 for the ResNets, 6 for ViT.
        poolings: how many of the first ``layers - 1`` convolutions are followed by a 2x2 max-pool;
            the mask has floor(S / 2^poolings) values a side.
        width: output channels of the first convolution; every later one doubles them (Table 11).
        channels: 3 for a mask per colour channel, 1 for one mask that all channels share (Table 3).

    Raises:
        UserError: If there are more poolings than layers to follow.
    """

    def __init__(
        self, layers: int = 5, poolings: int = 3, width: int = 8, channels: int = 3
    ) -> None:
        super().__init__()
        if poolings >= layers:
            raise problem(
                "method.patch_size",
                f"needs {poolings} poolings, and {layers} layers allow at most {layers - 1}",
                2**poolings,
                f"Use a patch size of at most {2 ** (layers - 1)}, or more method.layers.",
            )
        self.blocks = nn.ModuleList()
        features = 3
        for layer in range(layers - 1):
            # As published: twice the channels for each layer. Table 11 varies the first.
            out = width * 2**layer
            self.blocks.append(ConvBlock(features, out, pooled=layer < poolings))
            features = out
        self.head = nn.Conv2d(features, 3, 3, padding=1) if channels == 3 else None  # noqa: PLR2004

    def answer_one(self) -> None:
        """Let every value of every mask be 1, until the last layer is trained."""
        assert self.head is not None, "one channel has no last layer"
        assert self.head.bias is not None
        # The layers before it stay random: with a weight of 0 here, they still get gradients from
        # the second step on.
        nn.init.zeros_(self.head.weight)
        nn.init.ones_(self.head.bias)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, S, S) to masks (B, channels, floor(S/2^l), floor(S/2^l))."""
        features = images
        for block in self.blocks:
            features = block(features)
        # Table 3: a mask for all channels is the mean of the features, and has no last layer.
        return features.mean(dim=1, keepdim=True) if self.head is None else self.head(features)
