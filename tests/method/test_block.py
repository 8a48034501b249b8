import copy

import pytest
import torch
from torch import multiprocessing, nn

from smm_lightning.method.conv_block import ConvBlock


def plain(block):
    """The same layers one by one, with the same parameters."""
    return nn.Sequential(*copy.deepcopy(list(block)))


def example(pooled, dtype=torch.double):
    torch.manual_seed(0)
    block = ConvBlock(3, 6, pooled=pooled).to(dtype)
    block.fast = True
    nn.init.normal_(block[1].weight)  # of both signs
    nn.init.normal_(block[1].bias)
    nn.init.normal_(block[1].running_mean)
    nn.init.uniform_(block[1].running_var, 0.5, 2)
    assert len(block[1].weight.sign().unique()) == 2
    return block, torch.randn(4, 3, 9, 8, dtype=dtype) + 0.5


@pytest.mark.parametrize("pooled", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_block_is_its_layers_one_by_one(pooled, training):
    block, images = example(pooled)
    layers = plain(block).train(training)
    block.train(training)
    weight = torch.randn(plain(block).eval()(images).shape, dtype=images.dtype)
    results = []
    for module in (layers.requires_grad_(), block):
        x = images.clone().requires_grad_()
        out = module(x)
        (out * weight).sum().backward()
        norm = module[1]
        results.append([out, x.grad, *(p.grad for p in module.parameters())])
        results[-1] += [norm.running_mean, norm.running_var]
    for expected, own in zip(*results, strict=True):
        torch.testing.assert_close(own, expected, rtol=1e-9, atol=1e-9)
    if training:
        assert (block[0].bias.grad == 0).all()


@pytest.mark.parametrize("pooled", [True, False])
def test_gradients_are_those_of_finite_differences(pooled):
    block, images = example(pooled)
    block.train()
    parameters = [block[0].weight, block[1].weight, block[1].bias]

    def function(images, *_):
        return block(images)

    inputs = [images.requires_grad_(), *parameters]
    assert torch.autograd.gradcheck(function, inputs, eps=1e-7, atol=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_half_precision_is_close(training):
    block, images = example(pooled=True, dtype=torch.float32)
    block.train(training)
    expected = block(images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = block(images)
    assert out.dtype == torch.bfloat16
    assert (out.float() - expected).norm() < 0.02 * expected.norm()


def test_a_plane_far_from_zero_keeps_its_variance():
    block, images = example(pooled=False, dtype=torch.float32)
    block.train()
    layers = plain(block).double().train()
    expected = layers((images + 300).double())
    torch.testing.assert_close(block(images + 300).double(), expected, rtol=2e-3, atol=2e-3)


def _rank(rank, store, shares, result):
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=len(shares)
    )
    block, images = example(pooled=True)
    block.train()
    begin = sum(shares[:rank])
    x = images[begin : begin + shares[rank]].clone().requires_grad_()
    out = block(x)
    (out * out).sum().backward()
    gradients = [x.grad, *(p.grad for p in block.parameters()), block[1].running_var]
    torch.save([value.detach() for value in gradients], f"{result}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_ranks_of_uneven_shares_normalise_the_whole_batch(tmp_path):
    """Each rank's gradients are its part of one process's; the sums over ranks are equal."""
    shares = (3, 1)
    arguments = (str(tmp_path / "store"), shares, str(tmp_path))
    multiprocessing.spawn(_rank, args=arguments, nprocs=len(shares))
    block, images = example(pooled=True)
    block.train()
    x = images.requires_grad_()
    out = block(x)
    (out * out).sum().backward()
    ranks = [torch.load(tmp_path / f"{rank}.pt") for rank in range(len(shares))]
    torch.testing.assert_close(torch.cat([ranks[0][0], ranks[1][0]]), x.grad)
    for number, parameter in enumerate(block.parameters(), start=1):
        torch.testing.assert_close(ranks[0][number] + ranks[1][number], parameter.grad)
    for rank in ranks:
        torch.testing.assert_close(rank[-1], block[1].running_var)
