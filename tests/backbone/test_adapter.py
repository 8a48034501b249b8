"""What an adapter trains of a backbone: exactly that, and the same function before and after."""

import pytest
import timm
import torch

from smm_lightning.backbone import FineTuning, LoRA, NoAdapter, TimmModel, TinyNetwork
from smm_lightning.backbone.adapter import CorrectedLinear, merge
from smm_lightning.classifier import ReprogrammedClassifier
from smm_lightning.errors import UserError
from smm_lightning.train import train
from tests.resume.continued import learned_in, train_at_once_and_in_two
from tests.test_habits import SMALL

VIT = ("backbone=timm", "backbone.model=test_vit", "backbone.image_size=32")
SPEC = TimmModel(model="test_vit", pretrained=False, image_size=32)


def vit():
    torch.manual_seed(0)
    return SPEC.architecture()


def backbone_with(adapter, reads="logits"):
    return SPEC.freeze(vit(), SPEC.class_names(), adapter, reads)


def count(part):
    weights = part.values() if isinstance(part, dict) else part.parameters()
    return sum(weight.numel() for weight in weights)


def disturbed(backbone):
    """As after some training: B is no longer 0."""
    torch.manual_seed(1)
    with torch.no_grad():
        for weight in backbone.trained.parameters():
            weight.add_(torch.randn_like(weight), alpha=0.3)
    return backbone


def test_lora_of_a_large_transformer_has_as_many_parameters_as_the_paper_prints():
    with torch.device("meta"):
        network = timm.create_model("vit_large_patch16_384", pretrained=False)
    trained = LoRA(rank=6).attach(network, None, "logits")
    assert count(trained) == 589_824  # 0.60 M in Table 13
    assert len(trained) == 24 * 2 * 2


def test_lora_begins_as_the_frozen_network():
    images = torch.randn(2, 3, 32, 32)
    frozen, adapted = backbone_with(NoAdapter()), backbone_with(LoRA())
    assert torch.equal(frozen(images), adapted(images))
    assert frozen.sha256 == adapted.sha256
    assert frozen.frozen_count == adapted.frozen_count == count(vit())


@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_merged_corrections_equal_unmerged_ones_and_leave_keys(scale):
    adapted, images = disturbed(backbone_with(LoRA(scale=scale))), torch.randn(2, 3, 32, 32)
    expected = adapted(images)
    assert not torch.allclose(expected, backbone_with(NoAdapter())(images), atol=1e-2)
    merge(adapted.body)
    assert not any(isinstance(module, CorrectedLinear) for module in adapted.body.modules())
    torch.testing.assert_close(adapted(images), expected, rtol=1e-4, atol=1e-5)
    for (name, then), now in zip(vit().named_parameters(), adapted.body.parameters(), strict=False):
        rows = slice(None)
        if name.endswith("qkv.weight"):
            width = then.shape[1]
            assert not torch.equal(then[:width], now[:width])
            assert not torch.equal(then[2 * width :], now[2 * width :])
            rows = slice(width, 2 * width)
        assert torch.equal(then[rows], now[rows]), name


def test_a_correction_is_scale_times_b_times_a():
    torch.manual_seed(0)
    layer = torch.nn.Linear(5, 4)
    body = torch.nn.ModuleDict({"q": layer, "k": torch.nn.Linear(5, 4)})
    trained = LoRA(rank=2, scale=0.5).attach(body, None, "logits")
    down, up = trained["q.0.down"], trained["q.0.up"]
    with torch.no_grad():
        up.normal_()
    inputs = torch.randn(3, 5)
    expected = inputs @ (layer.weight + 0.5 * up @ down).T + layer.bias
    torch.testing.assert_close(body["q"](inputs), expected)
    assert type(body["k"]) is torch.nn.Linear
    bound = 5**-0.5  # kaiming_uniform with sqrt(5)
    assert 0.5 * bound < down.abs().max() <= bound


def test_corrections_stay_in_float32_and_in_eval_mode():
    adapted = disturbed(backbone_with(LoRA()))
    images = torch.randn(2, 3, 32, 32)
    expected = adapted(images)
    adapted.train().to(torch.bfloat16)
    assert {weight.dtype for weight in adapted.trained.parameters()} == {torch.float32}
    assert adapted.dtype == torch.bfloat16
    assert not any(module.training for module in adapted.body.modules())
    torch.testing.assert_close(adapted(images).float(), expected, rtol=0.1, atol=0.1)


def test_fine_tuning_trains_all_weights_and_no_statistics():
    spec = TinyNetwork(image_size=32)
    frozen, whole = spec.build(), spec.build(FineTuning())
    assert whole.frozen_count == 0
    assert count(whole.trained) == frozen.frozen_count
    assert not [name for name in whole.state_dict() if "running" in name or "tracked" in name]
    images = torch.randn(4, 3, 32, 32)
    whole.train()
    torch.testing.assert_close(whole(images), frozen(images), rtol=1e-4, atol=1e-5)
    whole(images).sum().backward()
    assert all(weight.grad.abs().sum() > 0 for weight in whole.trained.parameters())
    of_features = spec.build(FineTuning(), "features")
    assert count(of_features.trained) == count(whole.trained) - count(frozen.head)
    assert of_features.frozen_count == count(frozen.head)
    assert whole.to(torch.bfloat16).dtype == torch.float32


def test_what_does_not_fit_is_refused():
    with pytest.raises(UserError, match=r"has no linear layers of such names.*adapter=full"):
        TinyNetwork(image_size=32).build(LoRA())
    with pytest.raises(UserError, match=r"of such names.*It has blocks.<n>.attn.proj"):
        backbone_with(LoRA(layers="nothing"))
    with pytest.raises(UserError, match="is no regular expression"):
        LoRA(layers="(")
    adapted = backbone_with(LoRA())
    with pytest.raises(UserError, match="is trained, so it cannot be shared"):
        SPEC.adopt(adapted, LoRA())
    with pytest.raises(UserError, match="is trained, so it cannot be shared"):
        SPEC.adopt(adapted)
    with pytest.raises(UserError, match="is trained, so it cannot be shared"):
        SPEC.adopt(backbone_with(NoAdapter()), LoRA())


class Odd(torch.nn.Module):
    """Shares weights between layers, uses one layer twice, and another not at all."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.q, self.k, self.v = (torch.nn.Linear(6, 6) for _ in range(3))
        self.v.weight = self.q.weight
        self.again, self.unused = self.q, torch.nn.Linear(6, 6)
        self.norm, self.head = torch.nn.BatchNorm2d(3), torch.nn.Linear(6, 4)

    def forward(self, images):
        pooled = self.norm(images).mean((2, 3))
        seen = torch.cat([pooled, pooled**2], 1)
        seen = self.v(self.k(self.q(seen)).tanh()) + self.again(seen**2)
        return self.head(seen)


def odd(adapter, mapping="fc"):
    return ReprogrammedClassifier.wrap(
        Odd(), ["a", "b"], method="none", mapping=mapping, adapter=adapter, image_size=8
    )


@pytest.mark.parametrize("adapter", ["lora", "full"])
def test_shared_and_unused_weights(adapter, tmp_path):
    model, images = odd(adapter), torch.rand(5, 3, 8, 8)
    groups = model.parameter_groups()
    loss = torch.nn.functional.cross_entropy(model(images), torch.tensor([0, 1, 0, 1, 0]))
    loss.backward()  # as DDP and an optimiser's state ask for it
    assert all(weight.grad is not None for group in groups.values() for weight in group)
    assert not [name for name in model.state_dict() if "unused" in name or "running" in name]
    with torch.no_grad():
        for weight in groups["adapter"]:
            weight.add_(torch.randn_like(weight), alpha=0.3)
    expected = model.eval()(images)
    model.save_pretrained(tmp_path / "saved")  # shared weights once
    again = ReprogrammedClassifier.from_pretrained(tmp_path / "saved", backbone=Odd())
    assert torch.equal(again(images), expected)
    model.export(tmp_path / "whole.pt2")
    program = torch.export.load(tmp_path / "whole.pt2").module()
    torch.testing.assert_close(program(images), expected)
    assert torch.equal(model(images), expected)


def test_a_wrapped_network_stays_as_it_is():
    network = Odd()
    names = set(network.state_dict())
    with pytest.raises(UserError, match="in_place: an adapter trains a copy"):
        ReprogrammedClassifier.wrap(
            network, ["a", "b"], adapter="full", image_size=8, in_place=True
        )
    ReprogrammedClassifier.wrap(network, ["a", "b"], adapter="full", image_size=8)
    assert set(network.state_dict()) == names


def test_a_qkv_whose_order_is_not_known_is_refused():
    spec = TimmModel(model="efficientformer_l1", pretrained=False)  # by heads, of unlike widths
    with pytest.raises(UserError, match=r"lie in an unknown order in its qkv \(got 'Attention'\)"):
        spec.build(LoRA())


class TakesWeights(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.q, self.head = torch.nn.Linear(3, 5), torch.nn.Linear(5, 4)

    def forward(self, images):
        means = images.mean((2, 3))
        return self.head(torch.nn.functional.linear(means, self.q.weight, self.q.bias))


def test_a_network_that_takes_weights_itself_is_refused():
    with pytest.raises(UserError, match=r"does not work with it.*weight"):
        ReprogrammedClassifier.wrap(
            TakesWeights(), ["a", "b"], method="none", mapping="fc", adapter="lora", image_size=8
        )


@pytest.fixture
def vit_file(tmp_path):
    torch.save(vit().state_dict(), tmp_path / "vit.pth")
    return tmp_path / "vit.pth"


TRAINED = {
    "lora": (*VIT, "adapter=lora", "mapping=fc", "method=none"),
    "lora with a prompt": (*VIT, "adapter=lora", "method=smm", "mapping=blm"),
    "full": ("adapter=full", "method=none", "mapping=ilm"),
    "full with a prompt and a head": ("adapter=full", "method=full", "mapping=fc"),
}


@pytest.mark.parametrize("words", TRAINED.values(), ids=TRAINED)
def test_it_is_trained_saved_exported_and_goes_on(composed, tmp_path, vit_file, words):
    words = [*SMALL, *words, "scheduler=constant", "optimizer.groups.adapter.lr=0.01"]
    words += [f"backbone.weights={vit_file}"] if VIT[0] in words else []
    cfg, result, begun = train_at_once_and_in_two(composed, *words)
    one, early = learned_in(cfg), learned_in(begun)
    adapted = {name for name in one if name.startswith("backbone.")}
    assert sum(one[name].numel() for name in adapted) == result["params/adapter"]
    moved = [name for name in adapted if not torch.equal(one[name], early[name])]
    assert len(moved) > 0.9 * len(adapted)
    model = ReprogrammedClassifier.from_pretrained(cfg.paths.run)
    images = torch.rand(3, 3, model.input_size, model.input_size)
    expected = model(images)
    model.save_pretrained(tmp_path / "saved")
    again = ReprogrammedClassifier.from_pretrained(tmp_path / "saved")
    assert torch.equal(again(images), expected)
    model.export(tmp_path / "whole.pt2")
    program = torch.export.load(tmp_path / "whole.pt2").module()
    torch.testing.assert_close(program(images), expected, rtol=1e-3, atol=1e-4)
    assert torch.equal(model(images), expected)  # an export leaves the classifier as it is


def test_exported_corrections_are_merged(composed, tmp_path, vit_file):
    onnxruntime = pytest.importorskip("onnxruntime")
    words = ("epochs=1", "optimizer.groups.adapter.lr=0.01", f"backbone.weights={vit_file}")
    cfg = composed(*SMALL, *TRAINED["lora"], *words)
    train(cfg)
    model = ReprogrammedClassifier.from_pretrained(cfg.paths.run)
    images = torch.rand(3, 3, 32, 32)
    for ending in ("pt2", "onnx"):
        model.export(tmp_path / f"whole.{ending}")
    program = torch.export.load(tmp_path / "whole.pt2")
    assert not [name for name in program.state_dict if "down" in name or "trained" in name]
    session = onnxruntime.InferenceSession(tmp_path / "whole.onnx")
    (answers,) = session.run(None, {"images": images.numpy()})
    torch.testing.assert_close(torch.from_numpy(answers), model(images), rtol=1e-3, atol=1e-4)


def test_wrapping_with_an_adapter():
    network = vit()
    model = ReprogrammedClassifier.wrap(
        network,
        ["a", "b"],
        method="none",
        mapping="fc",
        adapter={"name": "lora", "rank": 2},
        image_size=32,
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
    )
    groups = model.parameter_groups()
    assert set(groups) == {"mapping", "adapter"}
    assert model.facts()["params/adapter"] == 2 * count(LoRA(rank=1).attach(vit(), None, "logits"))
    pairs = zip(network.parameters(), vit().parameters(), strict=True)
    assert all(torch.equal(ours, theirs) for ours, theirs in pairs)
    with torch.no_grad():  # as programs that predict do
        again = ReprogrammedClassifier.from_prompt(model.prompt, backbone=network)
    assert torch.equal(again(torch.ones(1, 3, 32, 32)), model.eval()(torch.ones(1, 3, 32, 32)))
    with pytest.raises(UserError, match="cannot be shared"):
        ReprogrammedClassifier.from_prompt(model.prompt, backbone=model.backbone)
    with pytest.raises(UserError, match="backbone: is a whole classifier"):
        ReprogrammedClassifier.from_prompt(model.prompt, backbone=model)
    with pytest.raises(UserError, match="adapter: names no choice beside its fields"):
        ReprogrammedClassifier.wrap(network, ["a", "b"], adapter={"rank": 2}, image_size=32)
