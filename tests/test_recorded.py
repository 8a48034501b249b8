"""Tables of finished grids: what comes back, and what grid, status and report make of them."""

import re
import shutil

import pytest

from smm_lightning.errors import UserError
from smm_lightning.run.recorded import Tables, read_table, record
from tests.programs import run_program, run_verb
from tests.report.made_up import result
from tests.test_sweep import TINY, states

IMAGES = {"train": {"images": 100, "stamp": "s", "digest": "d" * 64}}


def finished(key="0123e456", accuracy=0.1 + 0.2, **changes):
    more = {"run_name": f"r-{key}", "images": IMAGES, "class_names": ["a", "b"], "val/acc": None}
    return {**result(accuracy=accuracy, **changes), "run_key": key, **more}


def test_what_a_table_needs_comes_back_as_it_was(tmp_path):
    diagnosis = [{"kind": "mapping", "epoch": 3, "value": 4.0}]
    assert record(tmp_path / "deep/grid.csv", [finished(diagnosis=diagnosis, compiled=False)]) == 1
    (row,) = Tables(tmp_path / "deep").rows.values()
    assert row["recorded"] == str(tmp_path / "deep/grid.csv")
    assert row["run_key"] == "0123e456"  # which is no number
    assert row["test/acc_last"] == 0.1 + 0.2
    assert row["data/images"] == {"train": 100, "test": 50}
    assert row["images"] == {"train": {"images": 100, "digest": "d" * 64}}
    assert row["environment"] == {"versions": {"torch": "2.15.0"}, "git_commit": "a" * 40}
    assert (row["epochs"], row["compiled"], row["diagnosis"]) == (200, 0, diagnosis)
    assert row["config"]["method"] == {"name": "smm"}
    assert "epochs" not in row["config"]
    assert not row.keys() & {"history", "class_names", "val/acc"}


def test_a_run_has_one_row_and_other_rows_stay(tmp_path):
    table = tmp_path / "grid.csv"
    ill = [{"kind": "collapse", "epoch": 3, "value": 0.25}]
    record(table, [finished("a", 0.1, diagnosis=ill), finished("c", 0.3, device="cuda: X, 80 GB")])
    before = table.read_bytes()
    assert record(table, [*read_table(table), finished("a", 0.1, diagnosis=ill)]) == 2
    assert table.read_bytes() == before
    assert record(table, [finished("b", 0.2, **{"val/acc": 0.5}), finished("a", 0.4)]) == 3
    found = {key: row["test/acc_last"] for key, row in Tables(tmp_path).rows.items()}
    assert found == {"a": 0.4, "b": 0.2, "c": 0.3}
    assert Tables(tmp_path).rows["c"]["device"] == "cuda: X, 80 GB"


def test_without_tables_nothing_is_recorded(tmp_path):
    for folder in (None, tmp_path, tmp_path / "absent"):
        assert Tables(folder).rows == {}


@pytest.mark.parametrize(
    "content",
    [
        b"\x89PNG\r\n\x1a\n\x00\xff",
        b"<<<<<<< HEAD\n",
        b"key,accuracy\nab,0.5\n",
        b'"accuracy"\n0.5\n',
        b'"run_key","seed"\n"ab",zero\n',
        b'"run_key","seed"\n"ab",0\n',
        b'"run_key"\n"ab","more"\n',
        b'"run_key","config"\n"ab"\n',
        b'"a","a.b"\n1,2\n',
        b'"a.b","a"\n1,2\n',
    ],
)
def test_a_file_that_is_no_table_is_named(tmp_path, content):
    (tmp_path / "grid.csv").write_bytes(content)
    for reading in (lambda: Tables(tmp_path).rows, lambda: record(tmp_path / "grid.csv", [])):
        with pytest.raises(UserError, match=re.escape(str(tmp_path / "grid.csv"))) as error:
            reading()
        assert len(error.value.problems) == 1
    assert (tmp_path / "grid.csv").read_bytes() == content


def report(*arguments, cwd):
    done = run_verb("report", *arguments, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout


def table_of(text):
    return [line for line in text.splitlines() if line.startswith("| full")]


def test_a_grid_skips_what_stands_in_a_table(tmp_path):
    grid = ("method=full", "mapping=rlm", "seed=0,1", *TINY)
    trained = run_program("experiment=smoke", *grid, cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    table = tmp_path / "docs/results/smoke.csv"
    from_runs = report("smoke", *grid, "--record", cwd=tmp_path)
    assert "docs/results/smoke.csv: 2 runs" in from_runs
    assert report("smoke", *grid, "--record", cwd=tmp_path) == from_runs
    whole = table.read_bytes()
    with_tried = (*grid, "--record", "+report.tried=[optimizer.groups.pattern.lr]")
    report("smoke", *with_tried, cwd=tmp_path)
    assert '"tried.optimizer.groups.pattern.lr"' in table.read_text().splitlines()[0]
    report("smoke", *grid, "--record", cwd=tmp_path)
    assert table.read_bytes() == whole
    shutil.rmtree(tmp_path / "runs")

    again = run_program("experiment=smoke", *grid, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("stands in docs/results/smoke.csv") == 2
    assert not list(tmp_path.glob("runs/digits-*"))
    done, found = states("smoke", *grid, cwd=tmp_path)
    assert done.returncode == 0
    assert {(state, reason.split()[-1]) for state, reason in found.values()} == {
        ("done", "docs/results/smoke.csv")
    }
    from_table = report("smoke", *grid, cwd=tmp_path)
    assert table_of(from_table) == table_of(from_runs) != []
    assert "Runs that stand in docs/results/smoke.csv: 2." in from_table

    # A row of other images is no result; nor is any row where tables are not wanted.
    text = table.read_text()
    digest = re.findall(r'"([0-9a-f]{64})"', text.splitlines()[1])[0]
    table.write_text(text.replace(digest, "0" * 64, 1))
    changed = run_program("experiment=smoke", *grid, cwd=tmp_path)
    assert changed.returncode == 0, changed.stderr
    assert changed.stdout.count("had other images: other images in train") == 1
    assert changed.stdout.count("stands in docs/results/smoke.csv") == 1
    assert len(list(tmp_path.glob("runs/digits-*/result.json"))) == 1
    done, found = states("smoke", *grid, "paths.results=null", cwd=tmp_path)
    assert sorted(state for state, _ in found.values()) == ["done", "pending"]
