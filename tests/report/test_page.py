"""The page in a browser: no network, no errors, pictures and tables complete."""

import json
import re
import shutil
import subprocess

import pytest

from smm_lightning.figures.registry import Drawn
from smm_lightning.figures.style import new_figure, save
from smm_lightning.report.page import page
from tests.report.test_report import table_1

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
# Counts what the page shows; appended to a copy, since the page itself has no script.
PROBE = """<script>addEventListener("load", () => {
  const all = (what) => [...document.querySelectorAll(what)];
  const width = document.documentElement;
  document.title = JSON.stringify([
    all("img").filter((i) => i.complete && i.naturalWidth > 0).length,
    all("table").map((t) => all("tr").filter((r) => t.contains(r)).length),
    all("td").length,
    width.scrollWidth <= width.clientWidth,
  ]);
});</script>"""


@pytest.mark.skipif(BROWSER is None, reason="needs Chromium")
@pytest.mark.parametrize("size", ["1280,900", "390,844"], ids=["desk", "phone"])
def test_the_page_in_chromium(tmp_path, size):
    runs, report = table_1()
    figure = new_figure()
    figure.subplots().plot([1, 2])
    for name in ("one", "two"):
        save(Drawn(figure, {"x": [1, 2]}), tmp_path / "figures" / name, "What it shows.")
    file = tmp_path / "page.html"
    file.write_text(page(report, runs, tmp_path) + PROBE)
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"]
    options += ["--disable-background-networking", "--disable-component-update", "--disable-quic"]
    options += [f"--user-data-dir={tmp_path}/profile", f"--window-size={size}"]
    options += ["--host-resolver-rules=MAP * ~NOTFOUND", "--enable-logging=stderr", "--dump-dom"]
    command = [BROWSER, *options, file.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert not re.search(r"CONSOLE.*(error|refused|failed)", done.stderr, flags=re.I)
    title = re.search(r"<title>(.*?)</title>", done.stdout)[1].replace("&quot;", '"')
    pictures, tables, cells, fits = json.loads(title)
    assert pictures == 2
    assert tables == [3, 2, 3, 2]
    assert cells == 2 * (2 * 3 + 7)
    assert fits, "the page scrolls sideways as a whole"
