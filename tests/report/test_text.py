"""What results say is text wherever it is shown: Markdown, LaTeX, CSV, the page, figures."""

import csv
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from markdown_it import MarkdownIt

from smm_lightning.figures.style import heat_map, new_figure
from smm_lightning.report.layout import Layout
from smm_lightning.report.notes import notes_of
from smm_lightning.report.page import page
from smm_lightning.report.render import Report, as_csv, latex, markdown
from smm_lightning.report.tables import tables_of
from smm_lightning.run.recorded import read_table, record
from smm_lightning.run.result import load_result
from smm_lightning.text import csv_cell, from_csv_cell, in_a_line, parsed_json
from tests.hostile import answer_of
from tests.report.made_up import result, run

NAMES = (
    *("=HYPERLINK(1)", "+1", "-1", "@x", "'x", "a|b", "**bold**", "_x_", "__init__", "`code`"),
    *("[x](javascript:alert(1))", "![x](y)", "<script>alert(1)</script>", "<b>", "&lt;", "&amp"),
    *(r"\input{/etc/passwd}", r"a\\", "$\\frac{", "100%", "a#b", "{", "~~x~~", "x^2", "a_b"),
    *("a\nb", "c\r\nd", "\x1b[2J", "\u202e", "\xe9"),
)


class Texts(HTMLParser):
    """Texts of the elements, and which elements there are."""

    def __init__(self):
        super().__init__()
        self.texts, self.elements = [], set()

    def handle_starttag(self, tag, attributes):
        self.elements.add(tag)

    def handle_data(self, data):
        self.texts.append(data)


def texts_of(page_):
    parser = Texts()
    parser.feed(page_)
    return parser.texts, parser.elements


@pytest.fixture(scope="module")
def report():
    place = Path("made up")
    runs = [
        run(place / str(number), result(name, "smm", 0, 0.5, device=name))
        for number, name in enumerate(NAMES)
    ]
    (table,) = tables_of(runs, Layout(metrics=("test/acc_last",)))
    return Report("t", [table], [in_a_line(n) for n in notes_of(runs, [table])]), runs


def test_markdown_shows_names_as_they_are(report):
    html = MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(markdown(report[0]))
    texts, elements = texts_of(html)
    assert elements <= {"h1", "h2", "p", "ul", "li", "table", "thead", "tbody", "tr", "th", "td"}
    for name in NAMES:
        assert in_a_line(name) in texts, name
    assert any(all(in_a_line(name) in text for name in NAMES) for text in texts)  # of the devices


def test_the_page_shows_names_as_they_are(report, tmp_path):
    texts, elements = texts_of(page(*report, tmp_path))
    assert not elements & {"script", "b", "a"}
    for name in NAMES:
        assert in_a_line(name) in texts


def test_latex_runs_no_command_of_a_name(report):
    ours = r"\\(begin|end)\{tabular\}(\{l?c*\})?|\\(top|mid|bottom)rule"
    text = re.sub(ours, "", latex(report[0]))
    comments = [line for line in text.splitlines() if line.startswith("%")]
    (table,) = report[0].tables
    assert len(comments) == len(report[0].notes) + 1 + len(table.card)
    body = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
    words = r"\\text(backslash|less|greater|asciitilde|asciicircum)\{\}"
    for escaped in (words, r"\\[&%$#_{}]", r"\{\[\}", r" & ", r" \\\\$"):
        body = re.sub(escaped, "", body, flags=re.MULTILINE)
    assert not set(body) & set("\\&%$#_{}~^<>[")
    assert "HYPERLINK" in body


def test_a_spreadsheet_computes_nothing(report):
    rows = list(csv.DictReader(io.StringIO(as_csv(report[0]))))
    assert [from_csv_cell(row["row"]) for row in rows] == [in_a_line(name) for name in NAMES]
    for row in rows:
        assert not row["row"].startswith(("=", "+", "-", "@", "\t", "\r"))
    assert csv_cell(-1.5) == -1.5


def test_tables_of_grids_come_back_as_they_were(tmp_path):
    path = tmp_path / "table.csv"
    changes = {"run_name": "=1", "images": {"train": {"images": 1, "digest": "+1"}}}
    record(path, [result("-x", "@smm", device="=cmd", **changes)])
    cells = [cell for row in csv.reader(io.StringIO(path.read_text())) for cell in row]
    assert not [c for c in cells if c.startswith(("=", "+", "@")) or re.match(r"-\D", c)]
    (row,) = read_table(path)
    assert row["device"] == "=cmd"
    assert row["images"]["train"]["digest"] == "+1"
    assert row["config"]["dataset"]["name"] == "-x"


def test_figures_show_dollars():
    names = [r"$\frac{", "100 $ or $ 200"]
    drawn = heat_map(np.eye(2), names, names, r"$\undefined$", "source")
    drawn.savefig(io.BytesIO())
    assert [label.get_text() for label in drawn.axes[0].get_yticklabels()] == names
    with mpl.rc_context({"text.parse_math": True}):
        mathematics = new_figure()
        mpl.rcParams["text.parse_math"] = True
        mathematics.text(0, 0, names[0] + "$")
        with pytest.raises(ValueError, match=r"frac"):
            mathematics.savefig(io.BytesIO())


def test_json_of_others_is_refused_before_it_is_used():
    deepest = "[" * 100 + "]" * 100
    assert parsed_json(deepest)
    for text in ("[" * 102 + "]" * 102, "[" * 10**5, "NaN", "[Infinity]", "", "{", "9" * 5000):
        with pytest.raises(ValueError, match=r"\w"):
            parsed_json(text)


def test_a_result_with_names_that_are_no_unicode_is_read(good, tmp_path, capfd):
    """Folders of classes whose names no encoding knows."""
    folder = tmp_path / "runs/strange"
    folder.mkdir(parents=True)
    content = json.loads((good / "runs/good/result.json").read_text())
    content["class_names"][0] = content["mapping"][0]["target"] = "caf\udce9"
    (folder / "result.json").write_text(json.dumps(content))
    assert load_result(folder)["class_names"][0] == "caf\udce9"
    assert answer_of("report", tmp_path / "runs") == 0
    assert "Test accuracy" in capfd.readouterr().out
