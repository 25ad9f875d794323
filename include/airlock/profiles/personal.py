"""Personal data in the values of a source: all rows, a column at a time, and nothing of it kept but counts.

Each distinct text is looked at once. Arrow looks for the coarse pattern of each kind in all of them; the
exact check, in Python, then sees only what is left, and of very many only a sample, which the result says.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airlock.core.personal_data import DETECTORS, Detector, is_card_number, looks_like_card, mask, plain
from airlock.core.tokens import token_form
from airlock.profiles.source import Source, chosen_rows, text_of

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

_SMALLEST_CARD, _LARGEST_CARD = 1e12, 1e19


@dataclass(frozen=True)
class Hit:
    """Cells of one column with one kind of personal data.

    Attributes:
        cells: how many cells have it; an estimate where ``checked`` is less than ``suspected``.
        rows: rows of the data.
        suspected: distinct texts that the coarse pattern left.
        checked: how many of them were checked exactly.
        example: the mask of one match, never the match.
    """

    data: str
    column: str
    kind: str
    cells: int
    rows: int
    suspected: int
    checked: int
    example: str

    @property
    def share(self) -> float:
        """Share of all rows."""
        return self.cells / self.rows


def find_in_source(source: Source, data: str, maximum_texts: int) -> Iterator[Hit]:
    """Personal data in every column of a source, column by column, kinds in a fixed order."""
    for name, column in source.columns().items():
        if column.kind in ("boolean", "time", "duration", "no values"):
            continue
        if column.kind == "number":
            yield from _numbers(source, data, name, maximum_texts)
        else:
            yield from _texts(source, data, name, maximum_texts)


def _texts(source: Source, data: str, column: str, maximum_texts: int) -> Iterator[Hit]:
    values, counts = distinct(source, column)
    for kind, detector in DETECTORS.items():
        suspected = _suspected(values, detector)
        if not len(suspected):
            continue
        checked = suspected[chosen_rows(len(suspected), maximum_texts, _SEED)]
        cells, example = 0, ""
        for position, text in zip(checked.tolist(), values.take(checked).to_pylist(), strict=True):
            if match := next(detector.matches(plain(text)), ""):
                cells += int(counts[position])
                example = example or mask(match)
        if cells:
            whole = round(cells * int(counts[suspected].sum()) / int(counts[checked].sum()))
            yield Hit(data, column, kind, whole, source.rows(), len(suspected), len(checked), example)


def _numbers(source: Source, data: str, column: str, maximum_texts: int) -> Iterator[Hit]:
    """Card numbers kept as numbers, the only kind that can be told from a measurement.

    One in ten random numbers passes the check of a card number, so most of those that look like one have to.
    """
    import numpy as np

    values = source.numbers(column).values
    large = values[(values >= _SMALLEST_CARD) & (values < _LARGEST_CARD)]
    large = np.sort(large[large % 1 == 0])  # so that the order of rows changes nothing
    some = large[chosen_rows(len(large), maximum_texts, _SEED)]
    like = [text for text in (str(int(value)) for value in some) if looks_like_card(text)]
    cards = [text for text in like if is_card_number(text)]
    if len(cards) > len(like) / 2:
        cells = round(len(cards) * len(large) / len(some))
        rows = source.rows()
        yield Hit(data, column, "payment card number", cells, rows, len(large), len(some), mask(cards[0]))


def distinct(source: Source, column: str) -> tuple[pa.Array, npt.NDArray[np.int64]]:
    """The distinct texts of a column, in the order in which they first occur, and how often each does."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    chunks = [_as_text(chunk) for chunk in source.chunks(column)]
    if not chunks:
        return pa.array([], pa.large_string()), np.zeros(0, dtype="int64")
    counted = pc.value_counts(pa.chunked_array(chunks))
    present = counted.filter(pc.is_valid(counted.field("values")))
    return present.field("values"), present.field("counts").to_numpy(zero_copy_only=False)


def _as_text(array: pa.Array) -> pa.Array:
    import pyarrow as pa
    from pyarrow import types

    if types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if types.is_binary(array.type) or types.is_large_binary(array.type):
        texts = [None if value is None else value.decode("utf-8", "replace") for value in array.to_pylist()]
        return pa.array(texts, pa.large_string())
    try:
        return array.cast(pa.large_string())
    except pa.ArrowException:  # lists and structures
        return pa.array([None if v is None else text_of(v) for v in array.to_pylist()], pa.large_string())


def _suspected(values: pa.Array, detector: Detector) -> npt.NDArray[np.int64]:
    import numpy as np
    import pyarrow.compute as pc

    matching = pc.match_substring_regex(values, detector.coarse)
    foreign = pc.invert(pc.string_is_ascii(values))  # digits and signs have many forms there
    return np.flatnonzero(pc.or_(matching, foreign).to_numpy(zero_copy_only=False))


_SEED = 20260101
"""An even spacing would miss, or see nothing else than, what comes at every second place."""


@dataclass(frozen=True)
class Forms:
    """Whether a column looks like tokens: how many cells there are, and how many have no such form."""

    column: str
    cells: int
    plain: int
    forms: Sequence[str]


def forms_of(source: Source, column: str, maximum_texts: int) -> Forms:
    """Which forms of tokens the cells of a column have, from a sample of very many distinct texts."""
    values, counts = distinct(source, column)
    some = chosen_rows(len(values), maximum_texts, _SEED)
    found = [token_form(text) for text in values.take(some).to_pylist()]
    bare = sum(int(count) for count, form in zip(counts[some], found, strict=True) if not form)
    seen = int(counts[some].sum())
    whole = int(counts.sum())
    return Forms(column, whole, round(bare * whole / seen) if seen else 0, sorted({*found} - {""}))
