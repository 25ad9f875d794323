"""Canonical JSON: one value, one byte string, on every machine and for ever."""

from __future__ import annotations

import datetime as dt
import decimal
import hashlib
import json
from enum import StrEnum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airlock.core.base import Value
from airlock.core.canonical import canonical_json, digest_of, parse_json, sha256_hex
from airlock.core.errors import InvalidInputError
from airlock.core.evidence import GateResult, Verdict

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=10)
NUMBERS = st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


def by_the_book(value: Any) -> bytes:
    """RFC 8785 for values without floats: keys sorted as UTF-16, no spaces, minimal escapes."""
    if isinstance(value, dict):
        pairs = sorted(value.items(), key=lambda pair: pair[0].encode("utf-16-be"))
        return b"{" + b",".join(by_the_book(key) + b":" + by_the_book(item) for key, item in pairs) + b"}"
    if isinstance(value, list):
        return b"[" + b",".join(map(by_the_book, value)) + b"]"
    return json.dumps(value, ensure_ascii=False).encode()


# The RFC's own examples: https://www.rfc-editor.org/rfc/rfc8785 3.2.2 to 3.2.4


def test_the_example_of_the_rfc() -> None:
    value = {
        "numbers": [333333333.33333329, 1e30, 4.50, 2e-3, 0.000000000000000000000000001],
        "string": "\u20ac$\u000f\u000aA'\u0042\u0022\u005c\\\"\u002f",
        "literals": [None, True, False],
    }
    assert canonical_json(value) == (
        b'{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
        b'"string":"\xe2\x82\xac$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'
    )


def test_keys_are_sorted_as_utf_16() -> None:
    keys = ["\u20ac", "\r", "\ufb33", "1", "\U0001f600", "\u0080", "\u00f6"]
    found = list(parse_json(canonical_json(dict.fromkeys(keys, 0))))
    assert found == ["\r", "1", "\u0080", "\u00f6", "\u20ac", "\U0001f600", "\ufb33"]


@pytest.mark.parametrize(
    ("number", "text"),
    [(0.0, "0"), (-0.0, "0"), (1.0, "1"), (1e21, "1e+21"), (1e20, "100000000000000000000"), (5e-324,
     "5e-324"),
     (9007199254740991, "9007199254740991"), (0.1 + 0.2, "0.30000000000000004"), (1e-7, "1e-7"), (1e-6,
     "0.000001")],
)  # fmt: skip
def test_numbers_are_written_as_ecmascript_writes_them(number: float, text: str) -> None:
    assert canonical_json(number) == text.encode()


# Laws


@given(JSON)
def test_what_was_written_is_read_back(value: Any) -> None:
    data = canonical_json(value)
    assert parse_json(data) == value
    assert canonical_json(parse_json(data)) == data


@given(st.floats(2.0**53, 1e22) | st.floats(-1e22, -(2.0**53)))
def test_large_floats_are_read_back_as_floats(number: float) -> None:
    data = canonical_json([number])
    assert canonical_json(parse_json(data)) == data


@given(st.recursive(st.none() | st.booleans() | st.integers(-999, 999) | TEXT,
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner,
                    max_size=3)))  # fmt: skip
def test_bytes_are_those_of_the_rfc(value: Any) -> None:
    assert canonical_json(value) == by_the_book(value)


@given(st.dictionaries(TEXT, NUMBERS, max_size=6), st.randoms(use_true_random=False))
def test_the_order_of_keys_does_not_matter(value: dict[str, float], source: Any) -> None:
    pairs = list(value.items())
    source.shuffle(pairs)
    assert digest_of(dict(pairs)) == digest_of(value)


@given(JSON, JSON)
def test_different_values_have_different_digests(one: Any, other: Any) -> None:
    same_bytes = canonical_json(one) == canonical_json(other)
    assert (digest_of(one) == digest_of(other)) is same_bytes


def test_a_digest_is_sha256() -> None:
    assert sha256_hex(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert digest_of({"a": 1}) == hashlib.sha256(b'{"a":1}').hexdigest()


# What is refused

REFUSED: dict[str, Any] = {
    "NaN": float("nan"), "infinity": float("inf"), "2**53": 2**53, "-2**53": -(2**53),
    "lone surrogate": "\ud800",
    "NUL": "a\x00b", "NUL in a key": {"\x00": 1}, "NUL behind a backslash": "\\\x00", "bytes": b"x",
    "set": {1},
    "number as key": {1: 2}, "null as key": {None: 1}, "decimal": decimal.Decimal(1), "date": dt.date(2024,
    1, 1),
    "object": object(), "deep inside": {"a": [1, {"b": float("nan")}]},
}  # fmt: skip


@pytest.mark.parametrize("value", REFUSED.values(), ids=REFUSED.keys())
def test_what_has_no_canonical_form_is_refused(value: Any) -> None:
    with pytest.raises(InvalidInputError) as caught:
        canonical_json(value)
    assert caught.value.fix


def test_endless_nesting_is_refused_and_not_a_crash() -> None:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(InvalidInputError):
        canonical_json(value)
    with pytest.raises(InvalidInputError):
        parse_json("[" * 100_000)


def test_text_that_only_looks_like_an_escaped_nul_is_text() -> None:
    assert parse_json(canonical_json("\\u0000")) == "\\u0000"


@pytest.mark.parametrize(
    "text",
    ["", "{", "NaN", "[Infinity]", "-Infinity", "1e999", "[-1e999]", '{"a":1,"a":2}', '{"a":{"b":1,"b":1}}',
     "01", "1.",
     "'a'", '"\n"', "[1,]", "// x", b"\xff", "1" * 5000, "\ufeff1", "nul"],
)  # fmt: skip
def test_what_is_not_strict_json_is_refused(text: str | bytes) -> None:
    with pytest.raises(InvalidInputError, match="not strict JSON"):
        parse_json(text)


@pytest.mark.parametrize("number", [2**53 + 1, 10**20 + 1, 10**30, -(2**60) - 1])
def test_an_integer_no_float_can_hold_is_not_rounded(number: int) -> None:
    assert parse_json(str(number)) == number


# Values


class Colour(StrEnum):
    RED = "red"


class Sample(Value):
    name: str
    number: float = 0
    colour: Colour = Colour.RED
    data: dict[str, Any] = {}


@given(TEXT, NUMBERS, st.dictionaries(TEXT, JSON, max_size=3))
def test_a_value_is_read_back(name: str, number: float, data: dict[str, Any]) -> None:
    value = Sample(name=name, number=number, data=data)
    back = Sample.from_bytes(value.to_bytes())
    assert back == value
    assert back.digest == value.digest == digest_of(value.to_data())


def test_a_value_is_frozen_and_closed() -> None:
    value = Sample(name="a")
    with pytest.raises(ValueError, match="frozen"):
        value.name = "b"  # type: ignore[misc]
    with pytest.raises(ValueError, match="extra"):
        Sample.model_validate({"name": "a", "nam": "b"})


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_value_holds_no_nan_whatever_its_type(number: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        Sample(name="a", number=number)
    with pytest.raises(InvalidInputError):
        _ = Sample(name="a", data={"deep": [number]}).digest


@pytest.mark.parametrize("data", [object(), b"\xff", {1, 2.5, object()}])
def test_untyped_data_json_has_no_word_for_is_refused(data: Any) -> None:
    with pytest.raises(InvalidInputError):
        Sample(name="a", data={"x": data}).to_bytes()


def test_a_gate_result_with_large_floats_keeps_its_digest() -> None:
    result = GateResult(verdict=Verdict.PASSED, summary="x", details={"largest": 1.5e17})
    assert GateResult.from_bytes(result.to_bytes()).digest == result.digest
