import pytest
import torch
from torch import nn

from smm_lightning.device import compiles_on, fuses_attention, precision_for

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
DENSE, DEPTHWISE = nn.Conv2d(4, 4, 3), nn.Sequential(nn.Conv2d(4, 4, 3, groups=4))


@pytest.mark.parametrize(
    ("device", "bfloat16", "network", "expected"),
    [
        (CPU, True, DENSE, "bf16-mixed"),
        (CPU, True, DEPTHWISE, "32-true"),
        (CPU, False, DENSE, "32-true"),
        (CUDA, True, DEPTHWISE, "bf16-mixed"),
        (CUDA, False, DENSE, "16-mixed"),
    ],
)
def test_precision_follows_the_device(monkeypatch, device, bfloat16, network, expected):
    monkeypatch.setattr("smm_lightning.device._cpu_has_bfloat16", lambda: bfloat16)
    capability = (8, 0) if bfloat16 else (7, 5)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert precision_for("auto", device, network) == expected
    assert precision_for("64-true", device, network) == "64-true"


def test_compilation_and_attention_follow_the_device():
    assert [compiles_on(d, requested=None) for d in (CPU, CUDA)] == [False, True]
    assert [compiles_on(d, requested=True) for d in (CPU, CUDA)] == [True, True]
    assert [compiles_on(d, requested=False) for d in (CPU, CUDA)] == [False, False]
    fused = [(CPU, "32-true"), (CUDA, "bf16-mixed"), (CUDA, "32-true")]
    assert all(fuses_attention(*case, requested=None) for case in fused)
    assert not fuses_attention(CPU, "bf16-mixed", requested=None)
    assert fuses_attention(CPU, "bf16-mixed", requested=True)
    assert not fuses_attention(CUDA, "32-true", requested=False)
