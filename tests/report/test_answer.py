"""What a report says first, and what it chooses on val."""

import re
from pathlib import Path

import pytest

from smm_lightning.report.__main__ import report_of, with_beside
from smm_lightning.report.answer import answer
from smm_lightning.report.chart import chart_of
from smm_lightning.report.chosen import chosen_on_val
from smm_lightning.report.layout import Layout
from smm_lightning.report.page import page
from smm_lightning.report.render import markdown
from smm_lightning.report.runs import Run
from smm_lightning.report.tables import tables_of
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
    (table,) = tables_of(made({**accuracies, ("cifar10", "pad"): (0.1,)}), LAST)
    assert "pad" not in answer([table])[2]


def of_adapters(accuracies):
    """Runs by adapter, method and accuracies of two datasets."""
    return [
        run(HERE / "x", result(dataset, method, accuracy=a, config__adapter__name=adapter))
        for (adapter, method), values in accuracies.items()
        for dataset, a in zip(("cifar10", "svhn"), values, strict=True)
    ]


def test_smm_is_compared_with_adapters_and_not_with_itself_beside_one():
    runs = of_adapters(
        {
            ("none", "none"): (0.5, 0.5),
            ("none", "smm"): (0.9, 0.8),
            ("lora", "none"): (0.95, 0.6),
            ("lora", "smm"): (0.99, 0.99),
        }
    )
    layout = Layout(columns=("adapter.name", "method.name"), metrics=("test/acc_last",))
    lead, margins = answer(tables_of(runs, layout))
    assert lead == (
        "SMM is the best of 3 methods on 1 of 2 datasets, and on average +7.5 from the next best."
    )
    assert margins == "SMM minus the next best method: cifar10 -5.0 (lora), svhn +20.0 (lora)."


def test_every_mapping_has_a_sentence_of_its_own():
    runs = made(ACCURACIES) + made(ACCURACIES, config__mapping__name="flm")
    layout = Layout(columns=("mapping.name", "method.name"), metrics=("test/acc_last",))
    leads = answer(tables_of(runs, layout))[:2]
    assert [lead.split(" is ")[0] for lead in leads] == ["SMM (ilm)", "SMM (flm)"]


def test_a_dataset_in_two_rows_is_not_two_datasets():
    runs = made({("cifar10", "full"): (0.5,), ("cifar10", "smm"): (0.7,)})
    runs += made(
        {("cifar10", "full"): (0.3,), ("cifar10", "smm"): (0.2,)}, config__trainer__precision="x"
    )
    (table,) = tables_of(runs, LAST)
    assert len(table.rows) == 2
    assert not len(table.averages)
    assert "on 1 of 2 rows" in answer([table])[0]


def test_patch_sizes():
    runs = of_patch_sizes(
        [
            *(("svhn", 1, 0.5), ("svhn", 4, 0.7), ("svhn", 16, 0.6)),
            *(("dtd", 1, 0.3), ("dtd", 4, 0.3), ("dtd", 16, 0.4)),
        ]
    )
    layout = Layout(columns=("method.name", "method.patch_size"), metrics=("test/acc_last",))
    (table,) = tables_of(runs, layout)
    other = [
        run(
            r.folder,
            {
                **r.result,
                "config": {
                    **r.result["config"],
                    "method": {"name": "only_mask", "patch_size": r.value("method.patch_size")},
                },
                "test/acc_last": 0.9,
            },
        )
        for r in runs
    ]
    (both,) = tables_of([*runs, *other], layout)
    assert answer([both])[-1] == answer([table])[-1]
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


def test_cells_that_took_the_same_stand_in_a_line():
    runs = [tried(rate, rate, 0.5, name) for name in "abcde" for rate in (0.1, 0.2)]
    assert chosen_on_val(runs, TRIED)[1] == ["Chosen on val for all 5 cells: optimizer.lr 0.2."]
    runs += [tried(0.1, 0.9, 0.5, "f"), tried(0.2, 0.8, 0.5, "f")]
    assert chosen_on_val(runs, TRIED)[1] == [
        "Chosen on val for f, smm: optimizer.lr 0.1.",
        "Chosen on val for the other 5 cells: optimizer.lr 0.2.",
    ]
    assert chosen_on_val(runs[2:], TRIED)[1] == [
        "Chosen on val for f, smm: optimizer.lr 0.1.",
        "Chosen on val for b, smm; c, smm; d, smm; e, smm: optimizer.lr 0.2.",
    ]


def test_of_equal_values_the_first_is_taken_and_called_a_tie():
    up, down = 1 + 3e-8, 1 - 3e-8  # what float32 makes of the same number of images
    runs = [tried(0.1, 0.895 * down, 0.3), tried(0.1, 0.865 * down, 0.3, seed=1)]
    runs += [tried(0.01, 0.87 * up, 0.9), tried(0.01, 0.89 * up, 0.9, seed=1)]
    shown, (line,) = chosen_on_val(runs, TRIED)
    assert [run.value("optimizer.lr") for run in shown] == [0.1, 0.1]
    assert line.endswith("optimizer.lr 0.1 (a tie).")


def test_without_val_nothing_is_chosen_and_nothing_vanishes():
    runs = [tried(0.1, None, 0.9), tried(0.01, float("nan"), 0.4), tried(0.001, 0.8, 0.5)]
    shown, (line,) = chosen_on_val(runs, TRIED)
    assert shown == runs
    assert line.startswith("Nothing chosen on val yet for cifar10, smm, for want of")
    (table,) = tables_of(shown, TRIED)
    assert len(table.cells) == 3  # apart, not averaged
    others = [tried(0.1, None, 0.9, "svhn"), tried(0.01, 0.5, 0.9, "svhn")]
    shown, (line,) = chosen_on_val([*runs, *others], TRIED)
    assert shown == [*runs, *others]
    assert line.startswith("Nothing chosen on val yet for cifar10, smm and 1 more, for want of")


def test_candidates_are_compared_on_the_seeds_that_all_have():
    runs = [tried(0.1, 0.9, 0.1), tried(0.01, 0.95, 0.2), tried(0.01, 0.1, 0.2, seed=1)]
    shown, (line,) = chosen_on_val(runs, TRIED)
    assert {r.value("optimizer.lr") for r in shown} == {0.01}
    assert line == "Chosen on val for cifar10, smm: optimizer.lr 0.01."


def test_missing_runs_stay_missing():
    runs = [tried(0.1, 0.5, 0.9), tried(0.01, 0.6, 0.4)]
    values = {**runs[0].values, "optimizer.lr": 0.001}
    shown, (line,) = chosen_on_val([*runs, Run(HERE, values, None)], TRIED)
    assert len(shown) == 3
    assert line.startswith("Nothing chosen")
    gone = Run(HERE, {**runs[1].values, "seed": 1}, None)
    shown, (line,) = chosen_on_val([*runs, gone], TRIED)
    assert [r.value("optimizer.lr") for r in shown] == [0.01, 0.01]
    assert line.endswith("optimizer.lr 0.01, while runs are missing.")
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
    assert [table.title for table in both.tables[1:]] == ["beside it smoke"]
    assert both.notes[-1].startswith("Beside it (smoke mapping=ilm method=full,pad paths.root=")
    assert both.notes[-1].endswith(": 0 of 2 runs are finished; 2 are missing.")
    assert Path(tmp_path).exists()
