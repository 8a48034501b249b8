import itertools

import pytest
import torch
from torch import nn

from smm_lightning.backbone.stem import StemConvolution, is_stem, replace_stems

SHAPES = [
    (stride, kernel, padding)
    for stride, kernel, padding in itertools.product((2, 3, 4), (1, 2, 3, 5, 7), (0, 1, 2, 3))
    if padding < kernel
]


@pytest.mark.parametrize(("stride", "kernel", "padding"), SHAPES)
def test_value_and_gradient_are_those_of_the_convolution(stride, kernel, padding):
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 5, kernel, stride, padding).double().requires_grad_(False)
    stem = StemConvolution(layer)
    for height, width in ((19, 24), (20, 21), (kernel, kernel)):
        images = torch.randn(2, 3, height, width, dtype=torch.double, requires_grad=True)
        expected = layer(images)
        assert torch.equal(stem(images), expected)
        weight = torch.randn_like(expected)
        gradients = [torch.autograd.grad(f(images), images, weight)[0] for f in (layer, stem)]
        torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-12, atol=1e-12)


def test_only_plain_strided_convolutions_on_images_are_replaced():
    class Special(nn.Conv2d):
        pass

    wrong = [
        nn.Conv2d(3, 4, 3),
        nn.Conv2d(8, 4, 3, stride=2),
        nn.Conv2d(3, 3, 3, stride=2, groups=3),
        nn.Conv2d(3, 4, 3, stride=2, dilation=2),
        nn.Conv2d(3, 4, 3, stride=(2, 1)),
        nn.Conv2d(3, 4, (3, 5), stride=2),
        nn.Conv2d(3, 4, 3, stride=2, padding=(0, 1)),
        nn.Conv2d(3, 4, 3, stride=2, padding=1, padding_mode="reflect"),
        Special(3, 4, 3, stride=2),
    ]
    assert not any(is_stem(layer) for layer in wrong)
    network = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), nn.Conv2d(4, 4, 3)).eval()
    network.requires_grad_(requires_grad=False)
    assert replace_stems(network) == 1
    assert not network[0].training
    assert replace_stems(network) == 0
