"""Whatever stands in ``conf`` keeps its contract: methods and mappings are found by their files."""

import pytest
import torch

from smm_lightning.training.assembly import plan
from tests.conftest import CONF


def choices(group):
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


@pytest.mark.parametrize("method", choices("method"))
def test_a_method_keeps_its_contract(composed, method):
    cfg = composed("backbone=tiny", "dataset.native_size=16", f"method={method}")
    transform = plan(cfg).pieces.input_transform.eval()
    images = torch.rand(2, 3, transform.input_size, transform.input_size)
    assert transform(images).shape == (*transform.bare(images).shape[:2], 32, 32)
    assert transform.mask(images).shape[:2] == (2, 3)
    trained = [weight for group in transform.parameter_groups().values() for weight in group]
    assert {id(weight) for weight in trained} == {id(weight) for weight in transform.parameters()}
    assert cfg.method.look.label


@pytest.mark.parametrize("mapping", choices("mapping"))
def test_a_mapping_keeps_its_contract(composed, mapping):
    built = plan(composed("backbone=tiny", f"mapping={mapping}")).pieces.label_mapping(
        inputs=20, classes=10
    )
    source, targets = torch.randn(40, 20, dtype=torch.bfloat16), torch.arange(40) % 10
    built.reset()
    built.observe(source, targets)
    built.refit()
    assert built.fitted
    assert built.statistics is None
    assert built(source).shape == (40, 10)
    assert built(source).dtype == torch.float32
    names = [f"target {number}" for number in range(10)]
    rows = built.table(names, [str(number) for number in range(20)])
    assert [row["target"] for row in rows] == names
    again = plan(composed("backbone=tiny", f"mapping={mapping}")).pieces.label_mapping(
        inputs=20, classes=10
    )
    again.load_state_dict(built.state_dict())
    assert torch.equal(again(source), built(source))
