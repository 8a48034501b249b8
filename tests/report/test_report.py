"""Tables say what the result files say, and name what they do not know."""

import csv
import io
import math
import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

from smm_lightning.errors import UserError
from smm_lightning.report.__main__ import folder_of, report_of, title_of, write_report
from smm_lightning.report.answer import answer
from smm_lightning.report.comparison import compare_methods
from smm_lightning.report.layout import Layout
from smm_lightning.report.notes import notes_of
from smm_lightning.report.page import page
from smm_lightning.report.paper import printed, setting_fields
from smm_lightning.report.render import DASH, Report, as_csv, latex, markdown
from smm_lightning.report.runs import Run, runs_below
from smm_lightning.report.tables import tables_of
from tests.report.made_up import result, run, write

LAST = Layout(metrics=("test/acc_last",))
HERE = Path("made up")


def made(accuracies, **changes):
    """Runs of {(dataset, method): accuracies by seed}."""
    return [
        run(HERE / f"{dataset}-{method}-{seed}", result(dataset, method, seed, value, **changes))
        for (dataset, method), values in accuracies.items()
        for seed, value in enumerate(values)
    ]


def missing(dataset, method, seed=0):
    values = {"dataset.name": dataset, "method.name": method, "seed": seed}
    return Run(HERE, {**values, "backbone.name": "resnet18", "mapping.name": "ilm"}, None)


def test_mean_deviation_best_and_average():
    runs = made(
        {
            ("cifar10", "full"): (0.5, 0.6),
            ("cifar10", "smm"): (0.7, 0.7),
            ("svhn", "full"): (0.9, 0.9),
            ("svhn", "smm"): (0.8, 0.6),
        }
    )
    (table,) = tables_of(runs, LAST)
    assert table.rows == ["cifar10", "svhn"]
    assert table.columns == ["full", "smm"]
    cell = table.cells.loc["cifar10", "full"]
    assert cell["mean"] == pytest.approx(55)
    assert cell["std"] == pytest.approx(10 / math.sqrt(2))
    assert table.best("cifar10") == ["smm"]
    assert table.best("svhn") == ["full"]
    averages = table.averages["mean"].to_dict()
    assert averages == {"full": pytest.approx(72.5), "smm": pytest.approx(70)}
    text = markdown(Report("t", [table], []))
    assert "| cifar10 | 55.0 ± 7.1 | **70.0 ± 0.0** |" in text
    assert "| average | **72.5** | 70.0 |" in text


def test_missing_runs_are_counted_and_nothing_is_called_best_before_they_are_there():
    runs = [*made({("cifar10", "full"): (0.5, 0.6), ("cifar10", "smm"): (0.9,)})]
    runs += [missing("cifar10", "smm", 1), missing("svhn", "smm")]
    (table,) = tables_of(runs, LAST)
    assert table.best("cifar10") == []
    text = markdown(Report("t", [table], notes_of(runs, [table])))
    assert "- 3 of 5 runs are finished; 2 are missing." in text
    assert "| cifar10 | 55.0 ± 7.1 | 90.0 (n = 1 of 2) |" in text
    assert f"| svhn |  | {DASH} (n = 0 of 1) |" in text
    assert "average" not in text


def test_averages_are_over_the_rows_that_all_columns_have():
    runs = made({("a", "full"): (0.2,), ("b", "full"): (0.4,), ("c", "full"): (0.9,)})
    runs += made({("a", "smm"): (0.3,), ("b", "smm"): (0.5,)})
    runs.append(missing("c", "smm"))
    (table,) = tables_of(runs, LAST)
    assert "| average of 2 rows | 30.0 | 40.0 |" in markdown(Report("t", [table], []))


def test_averages_stand_under_their_columns_whatever_the_first_row_has():
    sizes = {"a": ((8, 0.2),), "b": ((4, 0.4), (8, 0.8)), "c": ((4, 0.4), (8, 0.8))}
    runs = [
        run(HERE, result(dataset, accuracy=value, config__method__patch_size=size))
        for dataset, values in sizes.items()
        for size, value in values
    ]
    layout = Layout(columns=("method.patch_size",), metrics=("test/acc_last",))
    (table,) = tables_of(runs, layout)
    assert table.columns == list(table.averages.index) == ["8", "4"]
    assert table.averages["mean"].tolist() == pytest.approx([80, 40])


def test_equal_numbers_are_equally_good():
    runs = made({("a", "full"): (1011 / 2000,), ("a", "smm"): (0.505,)})
    (table,) = tables_of(runs, LAST)
    shown = [f"{mean:.1f}" for mean in table.cells["mean"]]
    assert shown == ["50.5", "50.5"]
    assert table.best("a") == ["full", "smm"]


def test_a_report_shows_a_number():
    with pytest.raises(UserError, match=r"report.metrics: must name at least one"):
        Layout.of({"metrics": []})


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"config__epochs": 5}, "epochs=5"),
        ({"config__dataset__train_images": 100}, "dataset.train_images=100"),
        ({"card__train images": 60}, "train images=60"),
        ({"card__train checksum": "0123456789abcdef"}, "train checksum=01234567"),
        ({"card__test set": "read after"}, "test set=read after"),
        ({"config__optimizer__groups__pattern__lr": 0.1}, "optimizer.groups.pattern.lr=0.1"),
        (
            {"config__callbacks__stop": {"_target_": "a.EarlyStopping"}},
            "callbacks.stop._target_=a.EarlyStopping",
        ),
    ],
)
def test_unlike_protocols_are_never_averaged(change, name):
    runs = made({("cifar10", "smm"): (0.5, 0.6)})
    runs += [run(HERE, result(seed=2, accuracy=0.9, **change))]
    (table,) = tables_of(runs, LAST)
    assert len(table.rows) == 2
    means = sorted(round(mean) for mean in table.cells["mean"])
    assert means == [55, 90]
    assert any(name in row for row in table.rows)
    assert any(name.split("=")[0] in note for note in notes_of(runs, [table]))


@pytest.mark.parametrize(
    "change",
    [
        {"config__panels_every_n_epochs": 3},
        {"config__stall_minutes": 1},
        {"config__threads": 2},
        {"config__trainer__devices": 2},
        {"config__dataset__residency": "memory"},
        {"config__dataset__source__root": "elsewhere"},
        {"config__callbacks__last": {"_target_": "smm_lightning.training.LastCheckpoint"}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_changes_no_result_does_not_keep_seeds_apart(change):
    runs = made({("cifar10", "smm"): (0.5, 0.6)})
    runs += [run(HERE, result(seed=2, accuracy=0.7, **change))]
    (table,) = tables_of(runs, LAST)
    assert table.cells["n"].tolist() == [3]


def test_a_setting_of_the_method_becomes_a_column():
    runs = [
        run(HERE, result(accuracy=value, config__method__patch_size=size))
        for size, value in ((4, 0.5), (8, 0.6))
    ]
    (table,) = tables_of(runs, LAST)
    assert table.columns == ["smm, method.patch_size=4", "smm, method.patch_size=8"]


def test_other_names_that_differ_make_tables_of_their_own():
    runs = made({("cifar10", "smm"): (0.5,)})
    runs += made({("cifar10", "smm"): (0.6,)}, config__backbone__name="resnet50")
    assert [table.title for table in tables_of(runs, LAST)] == ["resnet18", "resnet50"]


def test_last_and_best_stand_apart_and_the_optimism_is_said():
    runs = made({("cifar10", "smm"): (0.5,), ("cifar10", "full"): (0.4,)})
    tables = tables_of(runs, Layout())
    assert [table.metric.name for table in tables] == ["test/acc_last", "test/acc_best_test"]
    head = "Optimism of the best epoch on test, which chose it"
    last = "+1.0 points over the last epoch (2 runs: smm +1.0, full +1.0)"
    assert f"{head}: {last}." in notes_of(runs, tables)
    for one in runs:
        one.result["test/acc_best_val"] = one.result["test/acc_last"] - 0.02
    more = "+3.0 points over the best epoch on val (2 runs: smm +3.0, full +3.0)"
    assert f"{head}: {last}, {more}." in notes_of(runs, tables)
    metrics = [table.metric.name for table in tables_of(runs, Layout())]
    assert metrics == ["test/acc_last", "test/acc_best_val", "test/acc_best_test"]
    strict = made({("cifar10", "smm"): (0.5,)}, **{"test/acc_best_test": None})
    assert not any("Optimism" in note for note in notes_of(strict, tables_of(strict, Layout())))


def test_over_rows_of_unlike_protocols_nothing_is_averaged():
    cells = {("a", "smm"): (0.5, 0.6), ("a", "full"): (0.4, 0.5)}
    runs = made(cells) + made({("b", method): value for (_, method), value in cells.items()})
    (table,) = tables_of(runs, LAST)
    assert len(table.averages) == 2
    assert compare_methods(table)
    assert answer([table])
    for one in runs:
        if one.value("dataset.name") == "b":
            one.result["card"] = {**one.result["card"], "test set": "read after"}
    (table,) = tables_of(runs, LAST)
    assert table.mixed == ["test set"]
    assert len(table.averages) == 0
    assert compare_methods(table) == []
    assert answer([table]) == []
    notes = "\n".join(notes_of(runs, [table]))
    assert "MIXED: cards of different rows differ in test set" in notes


def test_unlike_machines_are_named():
    runs = made({("cifar10", "smm"): (0.5,)})
    runs += made({("svhn", "smm"): (0.5,)}, device="NVIDIA H100", precision="bf16-mixed")
    notes = notes_of(runs, [])
    assert "Device: MIXED: cpu (1 runs), NVIDIA H100 (1 runs)." in notes
    assert "Precision: MIXED: 32-true (1 runs), bf16-mixed (1 runs)." in notes
    assert "PyTorch: 2.15.0." in notes


def test_the_papers_numbers_stand_beside_ours():
    layout = Layout(metrics=("test/acc_last",), paper="table1")
    runs = made({("cifar10", "full"): (0.7,), ("cifar10", "smm"): (0.728,)})
    runs += made({("svhn", "full"): (0.8,), ("svhn", "smm"): (0.9,)})
    (table,) = tables_of(runs, layout)
    text = markdown(Report("t", [table], []))
    assert "| 70.0 (paper 68.9 ± 0.4, +1.1) | **72.8** (paper 72.8 ± 0.7, +0.0) |" in text
    assert "| average | 75.0 (paper 46.9, +28.1) |" in text or "paper 46.8" in text


def test_numbers_of_another_network_stand_beside_without_differences(tmp_path):
    names = {"small": "resnet18", "cifar10_part": "cifar10", "gtsrb_part": "gtsrb"}
    layout = Layout(metrics=("test/acc_last",), paper="table1", paper_names=names)
    results = [
        result(dataset, method, accuracy=0.4, config__backbone__name="small")
        for dataset in ("cifar10_part", "gtsrb_part", "digits")
        for method in ("full", "smm")
    ]
    report = report_of("x", [run(tmp_path, content) for content in results], layout)
    text = markdown(report)
    assert "| cifar10_part | **40.0** (paper 68.9 ± 0.4) | **40.0** (paper 72.8 ± 0.7) |" in text
    assert "| digits | **40.0** | **40.0** |" in text
    assert "| average | **40.0** | **40.0** |" in text
    assert "numbers are of resnet18, cifar10, gtsrb: another network or other images." in text
    (first, *_) = csv.DictReader(as_csv(report).splitlines())
    assert (first["paper"], first["difference"]) == ("68.9", "")
    own = report_of("x", [run(tmp_path, result("cifar10", "smm", accuracy=0.4))], layout)
    assert "paper 72.8 ± 0.7, -32.8" in markdown(own)
    assert not any("another network" in note for note in own.notes)
    with pytest.raises(UserError, match=r"report.paper_names: must map our names"):
        Layout.of({"paper_names": "resnet18"})


def test_every_number_of_the_paper_is_found_by_the_run_that_rebuilds_it():
    """From tables.csv as it came; Tables 13 and 14 need methods that do not exist yet."""
    with (Path(__file__).parents[2] / "smm_lightning/report/paper.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 388
    names = {"test/acc": "test/acc_last", "train/acc": "train/acc_last"}
    for row in rows:
        settings = dict(item.split("=") for item in row["setting"].split())
        own = {
            f"{group}.name": row[group] for group in ("dataset", "method", "backbone", "mapping")
        }
        metric = names.get(row["metric"], row["metric"])
        if metric == "seconds_per_batch":  # of another machine: nothing of ours is compared
            continue
        of_average = row["dataset"] == "average"
        found = printed(
            row["table"], Run(HERE, {**own, **settings}, None), metric, average=of_average
        )
        assert found is not None, row
        assert found.mean == float(row["mean"]), row


def test_setting_fields_are_those_of_the_rows():
    assert setting_fields("table11") == ["method.width"]
    assert setting_fields("table1") == []


def test_paired_comparison_by_hand():
    """Differences 10, 20 in one row and 0, 6 in the other; intervals by Student's t."""
    runs = made(
        {
            ("a", "full"): (0.5, 0.5),
            ("a", "smm"): (0.6, 0.7),
            ("b", "full"): (0.3, 0.3),
            ("b", "smm"): (0.3, 0.36),
        }
    )
    (found,) = compare_methods(tables_of(runs, LAST)[0])
    assert (found.ours, found.theirs) == ("smm", "full")
    assert (found.rows, found.pairs, found.won) == (2, 4, 2)
    assert found.mean == pytest.approx((15 + 3) / 2)
    t_1 = 12.7062047
    half_rows = t_1 * (12 / math.sqrt(2)) / math.sqrt(2)  # of 15 and 3
    half_seeds = t_1 * (8 / math.sqrt(2)) / math.sqrt(2)  # of 5 and 13
    assert found.over_rows == pytest.approx((9 - half_rows, 9 + half_rows))
    assert found.over_seeds == pytest.approx((9 - half_seeds, 9 + half_seeds))


def test_only_pairs_are_compared():
    runs = made({("a", "full"): (0.5,), ("a", "smm"): (0.6, 0.9), ("b", "smm"): (0.1,)})
    (found,) = compare_methods(tables_of(runs, LAST)[0])
    assert (found.rows, found.pairs, found.over_rows, found.over_seeds) == (1, 1, None, None)
    assert found.mean == pytest.approx(10)
    assert compare_methods(tables_of(made({("a", "full"): (0.5,)}), LAST)[0]) == []


def test_mappings_are_compared_with_their_own():
    layout = Layout(columns=("mapping.name", "method.name"), metrics=("test/acc_last",))
    runs = made({("a", "full"): (0.5,), ("a", "smm"): (0.6,)})
    runs += made({("a", "full"): (0.1,), ("a", "smm"): (0.4,)}, config__mapping__name="flm")
    found = compare_methods(tables_of(runs, layout)[0])
    assert [(f.ours, f.theirs, round(f.mean)) for f in found] == [
        ("ilm, smm", "ilm, full", 10),
        ("flm, smm", "flm, full", 30),
    ]


def table_1():
    runs = made({(d, m): (0.5, 0.6, 0.7) for d in ("cifar10", "svhn") for m in ("full", "smm")})
    runs.append(missing("svhn", "pad"))
    tables = tables_of(runs, Layout(paper="table1"))
    return runs, Report("a_title", tables, notes_of(runs, tables))


def test_csv_holds_every_cell():
    _, report = table_1()
    rows = list(csv.DictReader(io.StringIO(as_csv(report))))
    assert len(rows) == sum(len(table.cells) for table in report.tables)
    first = rows[0]
    assert (first["metric"], first["row"], first["column"]) == ("test/acc_last", "cifar10", "full")
    assert float(first["mean"]) == pytest.approx(60)
    assert float(first["std"]) == pytest.approx(10)
    assert float(first["difference"]) == pytest.approx(60 - 68.9)
    assert rows[-1]["mean"] == ""
    assert rows[-1]["missing"] == "1"


def test_latex_has_as_many_cells_as_columns():
    _, report = table_1()
    text = latex(report)
    assert text.count(r"\begin{tabular}{lccc}") == text.count(r"\end{tabular}") == 2
    for line in text.splitlines():
        if line.endswith(r"\\"):
            assert line.count(" & ") == 3, line
    assert r"60.0\,$\pm$\,10.0" in text
    for line in text.splitlines():
        assert line.startswith("%") or not re.search(r"(?<!\\)[%_&#](?! )", line), line


def test_the_page_is_whole_and_needs_no_network(tmp_path):
    runs, report = table_1()
    folder = tmp_path / "reports"
    (folder / "figures").mkdir(parents=True)
    (folder / "figures" / "damaged.png").write_bytes(b"\x89PNG")
    Image.new("RGB", (30, 20), "red").save(folder / "figures" / "whole.png")
    text = page(report, runs, folder)
    assert text.count("<tr") - text.count("<thead>") == 2 * 2 + 2 * 1
    assert not re.search(r'(src|href)="(?!data:)', text)
    assert "<script" not in text
    assert re.findall(r'alt="(\w+), reports" src="(data:[^"]{0,12})', text) == [
        ("damaged", "data:,"),
        ("whole", "data:image/webp;b"),
    ]
    assert "n = 0 of 1" in text


def test_names_cannot_break_out_of_the_page(tmp_path):
    runs = made({("<script>alert(1)</script>", "smm"): (0.5,)})
    report = Report("t", tables_of(runs, LAST), [])
    assert "<script>" not in page(report, runs, tmp_path)


def test_the_report_of_a_changed_grid_does_not_replace_that_of_the_whole(tmp_path):
    whole = title_of("smoke", ["hydra/launcher=ray_cpus", "paths.root=elsewhere"])
    changed = title_of("smoke", ["method=smm,full", "dataset.source.root=/a b"])
    assert (whole, changed) == ("smoke", "smoke method=smm,full dataset.source.root=/a b")
    assert folder_of(tmp_path, whole) == tmp_path / "reports/smoke"
    name = "smoke_method=smm,full_dataset.source.root=_a_b"
    assert folder_of(tmp_path, changed) == tmp_path / "reports" / name


def test_a_folder_is_reported_from_its_files(tmp_path):
    for seed, value in enumerate((0.5, 0.7)):
        write(tmp_path / f"runs/r{seed}", result(seed=seed, accuracy=value))
    (tmp_path / "runs/half").mkdir()
    (tmp_path / "runs/half/result.json").write_text('{"config": ')
    shutil.copytree(tmp_path / "runs/r1", tmp_path / "runs/r1 copy")
    runs, broken = runs_below(tmp_path / "runs")
    assert len(runs) == 2  # a copy is no further seed
    line, copy = broken
    assert copy.endswith("r1 copy: is the same run as " + str(tmp_path / "runs/r1."))
    assert "half/result.json: cannot be read as a result" in line
    folder = tmp_path / "out"
    text = write_report(report_of("Runs", runs, Layout(), broken), runs, folder)
    assert f"- Left out: {tmp_path}/runs/half/result.json: cannot be" in text
    names = {path.name for path in folder.iterdir()}
    assert names == {"report.md", "report.csv", "report.tex", "report.html"}
    assert "60.0 ± 14.1" in (folder / "report.md").read_text()
    with pytest.raises(UserError, match=r"report: no finished run in this folder"):
        runs_below(tmp_path / "out")
