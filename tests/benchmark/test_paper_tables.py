"""Tables 4 and 5: what is counted is what the paper prints; what is timed is what is named."""

import re

import pytest

from smm_lightning.benchmark import paper_tables
from smm_lightning.benchmark.__main__ import main
from smm_lightning.benchmark.paper_tables import BACKBONES, counted, table4, table5
from smm_lightning.benchmark.setting import Setting
from smm_lightning.report.paper import rows_of
from smm_lightning.training.assembly import build


@pytest.mark.parametrize("row", rows_of("table4"), ids=lambda row: row["backbone"])
def test_every_number_of_table_4(row):
    """The paper prints the count of f_mask and two shares of it."""
    counts = counted(row["backbone"])
    shares = [float(share) for share in re.findall(r"([\d.]+)%", row["note"])]
    assert counts["mask_generator"] == int(row["mean"])
    of = (counts["pattern"], counts["network"])
    assert [round(100 * counts["mask_generator"] / n, 2) for n in of] == shares
    (line,) = (line for line in table4() if line.startswith(f"| {row['backbone']} "))
    assert f"| {counts['mask_generator']:,} |" in line
    assert line.count(f"{shares[0]:.2f}%") == line.count(f"{shares[1]:.2f}%") == 2


def test_smm_of_table_13_has_as_many_parameters_as_the_paper_prints(composed):
    cfg = composed("experiment=table13", "method=smm", "backbone.pretrained=false")
    spec = build(cfg.backbone, "backbone")
    groups = build(cfg.method, "method", **spec.of_images).parameter_groups()
    counts = {name: sum(w.numel() for w in group) for name, group in groups.items()}
    assert counts == {"pattern": 442_368, "mask_generator": 102_339}  # 0.54 M
    assert (spec.model, spec.image_size) == ("vit_large_patch16_384", 384)
    rates = {name: group.lr for name, group in cfg.optimizer.groups.items()}
    assert rates == dict.fromkeys(("pattern", "mask_generator", "mapping", "adapter"), 0.01)


def test_table_5_has_the_papers_accesses_and_times_of_ours(monkeypatch, capsys):
    assert BACKBONES == ("resnet18", "resnet50", "vit_b32")
    monkeypatch.setattr(paper_tables, "BACKBONES", ("resnet18",))
    lines = [line.split("|") for line in table5(Setting(batch=1, steps=1)) if "| resnet18" in line]
    assert [cells[2].strip() for cells in lines] == ["patchwise", "bilinear", "bicubic"]
    for cells in lines:
        assert cells[3] == cells[4]  # million pixel accesses, the paper's
        assert all(float(seconds) > 0 for seconds in cells[5:8])
    monkeypatch.setattr("sys.argv", ["smm benchmark", "table5", "--batch", "1", "--steps", "1"])
    main()
    assert "batches of 1 here" in capsys.readouterr().out
