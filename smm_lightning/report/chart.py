"""One picture of a table, as SVG within a page: a row of dots for each row, one for each column."""

from dataclasses import dataclass

from smm_lightning.report.tables import Table

_WIDTH, _LEFT, _ROW, _MARGIN = 720, 150, 22, 34  # pixels
_MOST_ROWS = 40
_MOST_COLUMNS = 12
_STEPS = (1, 2, 5, 10, 20, 25)  # between lines of the scale
_MOST_LINES = 6


@dataclass(frozen=True)
class Dot:
    """A value.

    Attributes:
        x: pixels from the left.
        y: pixels from above.
        colour: of its column.
        title: that a mouse shows.
    """

    x: float
    y: float
    colour: str
    title: str


@dataclass(frozen=True)
class Chart:
    """Of a table.

    Attributes:
        heading: what it shows.
        width: pixels.
        height: likewise.
        left: where the scale begins.
        rows: labels with their place from above.
        lines: of the scale: label and place from the left.
        dots: all values.
        columns: labels with their colours.
    """

    heading: str
    width: int
    height: int
    left: int
    rows: list[tuple[str, float]]
    lines: list[tuple[str, float]]
    dots: list[Dot]
    columns: list[tuple[str, str]]


def chart_of(table: Table, heading: str) -> Chart | None:
    """The chart, or ``None`` where a table is small, large, or of methods that look alike."""
    means = table.cells["mean"].unstack("column", sort=False).dropna(how="all")
    colours = table.colours
    fits = 1 < len(means) <= _MOST_ROWS and 1 < len(table.columns) <= _MOST_COLUMNS
    if not fits or not table.metric.highest or len(set(colours.values())) < len(colours):
        return None
    low, high = float(means.min().min()), float(means.max().max())
    step = next((s for s in _STEPS if (high - low) / s <= _MOST_LINES), _STEPS[-1])
    first, last = step * (low // step), step * (high // step + 1)

    def across(value: float) -> float:
        return round(_LEFT + (value - first) / (last - first) * (_WIDTH - _LEFT - 20), 1)

    rows = [(str(row), _MARGIN + _ROW * (n + 0.5)) for n, row in enumerate(means.index)]
    dots = [
        Dot(across(value), y, colours[column], f"{row}, {column}: {value:.{table.metric.digits}f}")
        for row, y in rows
        # SMM is drawn last, over the others.
        for column in sorted(means.columns, key=lambda column: column == "smm")
        if (value := float(means.loc[row, column])) == value
    ]
    count = round((last - first) / step) + 1
    lines = [(f"{first + n * step:g}", across(first + n * step)) for n in range(count)]
    height = 2 * _MARGIN + _ROW * len(rows)
    columns = [(column, colours[column]) for column in table.columns]
    return Chart(heading, _WIDTH, height, _LEFT, rows, lines, dots, columns)
