"""What a report says first, and what it chooses on val."""

import re
from pathlib import Path

import pytest

from smm_lightning.report.__main__ import report_of, with_beside
from smm_lightning.report.answer import answer
from smm_lightning.report.chart import chart_of
from smm_lightning.report.chosen import chosen_on_val
from smm_lightning.report.page import page
from smm_lightning.report.render import markdown
from smm_lightning.report.runs import Run
from smm_lightning.report.tables import Layout, tables_of
from tests.report.made_up import result, run
from tests.report.test_report import HERE, LAST, made, missing

ACCURACIES = {
    ("cifar10", "full"): (0.5, 0.6),
    ("cifar10", "narrow"): (0.6, 0.6),
    ("cifar10", "smm"): (0.7, 0.7),
    ("svhn", "full"): (0.9, 0.9),
    ("svhn", "narrow"): (0.2, 0.2),
    ("svhn", "smm"): (0.8, 0.8),
}


def of_patch_sizes(accuracies):
    """Runs of SMM by dataset, patch size and accuracy."""
    return [
        run(
            HERE / f"{dataset}-{size}", result(dataset, accuracy=a, config__method__patch_size=size)
        )
        for dataset, size, a in accuracies
    ]


def test_smm_against_the_next_best():
    (table,) = tables_of(made(ACCURACIES), LAST)
    first, second = answer([table])
    assert first == (
        "SMM is the best of 3 methods on 1 of 2 datasets, and on average +0.0 from the next best."
    )
    assert second == "SMM minus the next best method: cifar10 +10.0 (narrow), svhn -10.0 (full)."


def test_a_row_with_missing_runs_answers_nothing():
    runs = [*made(ACCURACIES), missing("cifar10", "full", seed=2)]
    (table,) = tables_of(runs, LAST)
    assert answer([table])[0].startswith("SMM is the best of 3 methods on 0 of 1 datasets")
    (table,) = tables_of(made({("cifar10", "full"): (0.5,)}), LAST)
    assert answer([table]) == []


def test_what_the_parts_of_smm_bring():
    accuracies = {
        ("cifar10", "full"): (0.5,),
        ("cifar10", "only_mask"): (0.4,),
        ("cifar10", "smm_single_channel"): (0.65,),
        ("cifar10", "smm"): (0.7,),
    }
    (table,) = tables_of(made(accuracies), LAST)
    assert answer([table])[2] == (
        "SMM minus what lacks a part of it, on average: full +20.0, only_mask +30.0, "
        "smm_single_channel +5.0."
    )


def test_patch_sizes():
    runs = of_patch_sizes(
        [
            *(("svhn", 1, 0.5), ("svhn", 4, 0.7), ("svhn", 16, 0.6)),
            *(("dtd", 1, 0.3), ("dtd", 4, 0.3), ("dtd", 16, 0.4)),
        ]
    )
    layout = Layout(columns=("method.name", "method.patch_size"), metrics=("test/acc_last",))
    (table,) = tables_of(runs, layout)
    assert answer([table])[-1] == (
        "Patch sizes: from 1 to 4 the accuracy changes by +10.0 on average, between 4 and 16 by "
        "10.0 in size."
    )


def test_several_tables_name_themselves():
    runs = made(ACCURACIES) + made(ACCURACIES, config__backbone__name="resnet50")
    lead, *details = report_of("x", runs, LAST).answer
    assert lead == (
        "SMM is the best of 3 methods on 2 of 4 rows, and on average +0.0 from the next best."
    )
    assert [sentence.split(":")[0] for sentence in details] == ["resnet18", "resnet50"]


def test_no_average_where_rows_are_no_datasets():
    runs = made(ACCURACIES)
    layout = Layout(rows=("method.name",), columns=("dataset.name",), metrics=("test/acc_last",))
    (table,) = tables_of(runs, layout)
    assert not len(table.averages)
    assert "average" not in markdown(report_of("x", runs, layout))
    (table,) = tables_of(runs, LAST)
    assert len(table.averages) == 3


TRIED = Layout(metrics=("test/acc_last",), tried=("optimizer.lr",))


def tried(rate, val, test, dataset="cifar10", seed=0):
    changes = {"config__optimizer__lr": rate, "val/acc": val}
    return run(
        HERE / f"{dataset}-{rate}-{seed}", result(dataset, accuracy=test, seed=seed, **changes)
    )


def test_val_chooses_and_never_the_test():
    runs = [tried(0.1, 0.5, 0.9), tried(0.01, 0.6, 0.4), tried(0.01, 0.8, 0.6, seed=1)]
    runs += [
        tried(0.1, 0.6, 0.9, seed=1),
        tried(0.1, 0.9, 0.3, "svhn"),
        tried(0.01, 0.1, 0.8, "svhn"),
    ]
    shown, lines = chosen_on_val(runs, TRIED)
    rates = [(r.value("dataset.name"), r.value("optimizer.lr")) for r in shown]
    assert rates == [("cifar10", 0.01), ("cifar10", 0.01), ("svhn", 0.1)]
    assert lines == [
        "Chosen on val for cifar10, smm: optimizer.lr 0.01.",
        "Chosen on val for svhn, smm: optimizer.lr 0.1.",
    ]
    report = report_of("x", runs, TRIED)
    (table,) = report.tables
    assert table.cells["mean"].tolist() == pytest.approx([50, 30])
    assert table.unlike == []
    assert lines[0] in report.notes


def test_missing_runs_stay_missing():
    runs = [tried(0.1, 0.5, 0.9), tried(0.01, 0.6, 0.4)]
    values = {**runs[0].values, "optimizer.lr": 0.001}
    shown, _ = chosen_on_val([*runs, Run(HERE, values, None)], TRIED)
    assert [r.value("optimizer.lr") for r in shown] == [0.01, 0.001]
    (table,) = tables_of(shown, TRIED)
    assert table.cells["missing"].tolist() == [1]


def test_the_chart_is_what_the_table_says(tmp_path):
    runs = made(ACCURACIES, config__method__look=None)
    report = report_of("x", runs, LAST)
    chart = chart_of(report.tables[0], "Accuracy")
    assert [label for label, _ in chart.rows] == ["cifar10", "svhn"]
    assert len(chart.dots) == 6
    scale = {float(label): x for label, x in chart.lines}
    slope = (scale[80] - scale[60]) / 20
    for dot in chart.dots:
        value = float(dot.title.rpartition(" ")[2])
        assert dot.x == pytest.approx(scale[60] + slope * (value - 60), abs=0.2)
        assert chart.left <= dot.x <= chart.width
    text = page(report, runs, tmp_path)
    assert text.count("<circle") == 6
    assert text.index("SMM is the best of 3 methods") < text.index("<svg") < text.index("<table")
    assert len(re.findall("<title>[^<]*smm: 70.0</title>", text)) == 1
    (single,) = tables_of(made({("cifar10", "smm"): (0.5,)}), LAST)
    assert chart_of(single, "Accuracy") is None


def test_the_baselines_stand_beside(tmp_path):
    from smm_lightning.report.__main__ import grid_of

    report = report_of("x", made(ACCURACIES), LAST)
    grid = grid_of("smoke", ["mapping=ilm", "method=full,pad", f"paths.root={tmp_path}"])
    both = with_beside(report, grid)
    assert [table.title for table in both.tables[1:]] == ["beside it smoke"] * 2
    assert both.notes[-1].startswith("Beside it 2 of 2 runs are missing: smoke mapping=ilm")
    assert Path(tmp_path).exists()
