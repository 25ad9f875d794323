"""One picture of a gate's numbers: each value with its interval and its limit, as a forest plot in SVG.

Written by hand and not by a plotting library: the same numbers give the same bytes everywhere, the text stays
text, and colours follow the reader's light or dark page.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from xml.sax.saxutils import escape

from airlock.core.evidence import Metric
from airlock.core.statistics import exceeds

_WIDTH, _MARGIN = 460, 14
_ROW, _HEAD, _FOOT, _GAP = 36, 26, 20, 10
_ROWS, _PANELS = 8, 10
"""Rows of one panel and panels of one picture; the table beside it has them all."""
_EXACT, _LARGE = 10**15, 10_000
"""Whole numbers below the first are written out; from the second on decimals say nothing."""
_FARTHEST = 1e300
"""What lies beyond is drawn there, so that differences stay finite."""
_NAME = 44
"""Characters of a name that fit beside its value."""

_STYLE = """\
.p{--ink:#17202c;--soft:#5a6675;--line:#cfd6df;--good:#11683f;--bad:#b3232f;--plain:#3b5b8c;--back:#ffffff;
font:12px system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
@media (prefers-color-scheme:dark){.p{--ink:#e4e9f0;--soft:#9aa7b7;--line:#364354;--good:#5fcf96;
--bad:#ff8a90;--plain:#8db8f2;--back:#171e28}}
.p .b{fill:var(--back)}.p text{fill:var(--ink)}.p .h{font-weight:600;font-size:13px}
.p .s{fill:var(--soft);font-size:10.5px}.p .a{stroke:var(--line);stroke-width:1}
.p .l{stroke:var(--ink);stroke-width:1.5;stroke-dasharray:3 2}
.p .good{stroke:var(--good);fill:var(--good)}.p .bad{stroke:var(--bad);fill:var(--bad)}
.p .plain{stroke:var(--plain);fill:var(--plain)}.p .i{stroke-width:3;stroke-linecap:round;opacity:.55}"""


@dataclass(frozen=True)
class _Scale:
    """From a value to a place on the line."""

    low: float
    high: float

    def __call__(self, value: float) -> str:
        share = (_drawable(value) - self.low) / (self.high - self.low)
        return f"{_MARGIN + min(1.0, max(0.0, share)) * (_WIDTH - 2 * _MARGIN):.1f}"


def plot(metrics: Sequence[Metric]) -> str | None:
    """The picture as SVG text; ``None`` when no metric has an interval or a limit to be seen.

    Law: the same metrics give the same text.
    """
    drawn = [m for m in metrics if m.value is not None and (m.interval or m.threshold is not None)]
    panels = [(name, list(rows)) for name, rows in groupby(sorted(drawn, key=_name), key=_name)]
    if not panels:
        return None
    order = {name: place for place, name in reversed(list(enumerate(m.name for m in drawn)))}
    panels.sort(key=lambda panel: (all(_tone(row) != "bad" for row in panel[1]), order[panel[0]]))
    top, parts = _GAP, []
    for name, rows in panels[:_PANELS]:
        worst_first = sorted(range(len(rows)), key=lambda place: _tone(rows[place]) != "bad")
        chosen = [rows[place] for place in sorted(worst_first[:_ROWS])]
        parts += list(_panel(name, chosen, len(rows) - len(chosen), top))
        top += _HEAD + _ROW * len(chosen) + _FOOT + _GAP
    if (more := len(panels) - _PANELS) > 0:
        parts.append(_text(_MARGIN, top + 8, f"and {more} more metrics in the table", "s"))
        top += 18
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="p" viewBox="0 0 {_WIDTH} {top}" role="img" '
        f'aria-label="Values with their intervals and limits">\n<style>{_STYLE}</style>\n'
        f'<rect class="b" width="{_WIDTH}" height="{top}" rx="8"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _name(metric: Metric) -> str:
    return metric.name


def _panel(name: str, rows: Sequence[Metric], more: int, top: float) -> Iterator[str]:
    scale = _scale(rows)
    rest = f", {more} more in the table" if more else ""
    yield _text(_MARGIN, top + 16, _short(name, 48) + rest, "h", full=name)
    for number, row in enumerate(rows):
        y = top + _HEAD + _ROW * number
        yield from _row(row, scale, y)
    bottom = top + _HEAD + _ROW * len(rows) + 9
    yield _text(_MARGIN, bottom, number_text(scale.low), "s")
    yield _text(_WIDTH - _MARGIN, bottom, number_text(scale.high), "s", anchor="end")


def _row(row: Metric, scale: _Scale, y: float) -> Iterator[str]:
    middle, tone = y + 25, _tone(row)
    yield _text(_MARGIN, y + 13, _short(row.where or "all rows", _NAME), full=row.where)
    limit = "" if row.threshold is None else f"  (limit {number_text(row.threshold)})"
    yield _text(_WIDTH - _MARGIN, y + 13, f"{number_text(row.value)}{limit}", anchor="end")
    yield f'<line class="a" x1="{_MARGIN}" x2="{_WIDTH - _MARGIN}" y1="{middle}" y2="{middle}"/>'
    if row.interval is not None:
        low, high = (scale(end) for end in row.interval)
        yield f'<line class="i {tone}" x1="{low}" x2="{high}" y1="{middle}" y2="{middle}"/>'
    if row.threshold is not None:
        place = scale(row.threshold)
        yield f'<line class="l" x1="{place}" x2="{place}" y1="{middle - 7}" y2="{middle + 7}"/>'
    if row.value is not None:
        yield f'<circle class="{tone}" cx="{scale(row.value)}" cy="{middle}" r="4"/>'


def _scale(rows: Sequence[Metric]) -> _Scale:
    ends = [
        end for row in rows for end in (row.value, row.threshold, *(row.interval or ())) if end is not None
    ]
    low, high = _drawable(min(ends)), _drawable(max(ends))
    if 0 <= low < 0.3 * high:
        low = 0.0
    room = 0.04 * (high - low) or 0.5 * abs(high) or 0.5
    return _Scale(low if low == 0 else low - room, high + room)


def _drawable(value: float) -> float:
    return min(_FARTHEST, max(-_FARTHEST, value))


def _tone(metric: Metric) -> str:
    """Whether the value stands on the right side of its limit."""
    if metric.threshold is None or metric.value is None or metric.direction == "none":
        return "plain"
    ends = (metric.value, metric.threshold)
    wrong = exceeds(*ends) if metric.direction == "lower" else exceeds(*reversed(ends))
    return "bad" if wrong else "good"


def number_text(value: float | None) -> str:
    """A number for a reader: four digits that count, thousands apart."""
    if value is None:
        return "undefined"
    if value == int(value) and abs(value) < _EXACT:
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= _LARGE else f"{value:.4g}"


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


def _text(x: float, y: float, text: str, style: str = "", *, anchor: str = "", full: str = "") -> str:
    attributes = (f' class="{style}"' if style else "") + (f' text-anchor="{anchor}"' if anchor else "")
    title = f"<title>{_xml(full)}</title>" if full and full != text else ""
    return f'<text x="{x}" y="{y}"{attributes}>{title}{_xml(text)}</text>'


def _xml(text: str) -> str:
    """Text for XML, which has no word for control characters."""
    kept = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    return escape(kept, {'"': "&quot;"})
