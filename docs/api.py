"""Write the page of the Python interface, from the docstrings, into a folder: make docs."""

import re
import sys
from importlib import import_module
from pathlib import Path

import pdoc

ROOMS = ("backbone", "dataset", "mapping", "method", "training")
MODULES = ("smm_lightning", *(f"smm_lightning.{room}" for room in ROOMS))

for name in MODULES:
    module = import_module(name)
    for public in module.__all__:  # pdoc does not see what is loaded when it is asked for
        setattr(module, public, getattr(module, public))

folder = Path(sys.argv[1] if sys.argv[1:] else "site")
pdoc.render.configure(docformat="google")
pdoc.pdoc(*MODULES, output_directory=folder)
for page in folder.rglob("*.html"):
    text = re.sub(r":\w+:<code>", "<code>", page.read_text(encoding="utf-8"))
    page.write_text(text, encoding="utf-8")
