"""Personal data in text: what is found, what is left alone, and that nothing found is ever shown."""

from __future__ import annotations

import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airlock.core.personal_data import find_personal_data, is_card_number, mask

FOUND = [
    ("write to ann.lee+loan@post.example.co.uk.", "e-mail address", "ann.lee+loan@post.example.co.uk"),
    ("jörg.müller@bücher.example", "e-mail address", "jörg.müller@bücher.example"),
    ("a\u200bnn@exa\u00admple.org", "e-mail address", "ann@example.org"),
    ("SSN 078-05-1120", "US social security number", "078-05-1120"),
    ("078 05 1120", "US social security number", "078 05 1120"),
    ("078\u201305\u20131120", "US social security number", "078-05-1120"),
    ("DE89 3704 0044 0532 0130 00 PAID IN FULL", "IBAN", "DE89 3704 0044 0532 0130 00"),
    ("gb82west12345698765432", "IBAN", "gb82west12345698765432"),
    ("AT61 1904 3002 3457 3201 and more", "IBAN", "AT61 1904 3002 3457 3201"),
    ("NO93 8601 1117 947", "IBAN", "NO93 8601 1117 947"),
    ("4111 1111 1111 1111", "payment card number", "4111 1111 1111 1111"),
    ("card 5500-0055-5555-5559, exp. 12/29", "payment card number", "5500-0055-5555-5559"),
    ("3782 822463 10005", "payment card number", "3782 822463 10005"),
    ("1234 4111 1111 1111 1111", "payment card number", "4111 1111 1111 1111"),
    ("\uff14\uff11\uff11\uff11" + "\uff11" * 12, "payment card number", "4" + "1" * 15),
    ("(617) 555-0100", "phone number", "(617) 555-0100"),
    ("617.555.0100", "phone number", "617.555.0100"),
    ("+49 30 1234567", "phone number", "+49 30 1234567"),
    ("+1 (617) 555 0100", "phone number", "+1 (617) 555 0100"),
    ("from 203.0.113.7", "IP address", "203.0.113.7"),
    ("2001:db8::8a2e:370:7334", "IP address", "2001:db8::8a2e:370:7334"),
]

LEFT_ALONE = [
    "", "approved", "12", "2024-01-01 12:30:45", "12:30:45", "0.5423457689123456", "100-200-3000", "v1.2.3.4",
    "1.2.3.4.5", "300.1.1.1", "127.0.0.1", "255.255.255.0", "std::vector::iterator",
    "user at example dot org", "@home",
    "a@b", "000-12-3456", "666-12-3456", "900-12-3456", "078-00-1120", "078-05-0000", "4111 1111 1111 1112",
    "9111111111111111", "DE89370400440532013001", "DE893704004405320130001", "XX89370400440532013000",
    "4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1", "1e16", "12345678901234567890123", "case 20240101-17 of branch 4",
]  # fmt: skip


@pytest.mark.requirement("G-7")
@pytest.mark.parametrize(("text", "kind", "match"), FOUND)
def test_what_is_found(text: str, kind: str, match: str) -> None:
    assert find_personal_data(text) == {kind: match}


@pytest.mark.parametrize("text", LEFT_ALONE)
def test_what_is_left_alone(text: str) -> None:
    assert find_personal_data(text) == {}


def test_one_text_can_hold_several_kinds() -> None:
    text = "ann@example.org, 617-555-0100, 078-05-1120"
    assert set(find_personal_data(text)) == {"e-mail address", "phone number", "US social security number"}


def luhn_digit(digits: str) -> str:
    """The check digit, worked out the way the standard's example does it: by hand, digit by digit."""
    total = 0
    for place, digit in enumerate(digits[::-1]):
        value = int(digit) * 2 if place % 2 == 0 else int(digit)
        total += value // 10 + value % 10
    return str(-total % 10)


@given(st.text("0123456789", min_size=14, max_size=14))
def test_a_card_number_has_one_valid_check_digit(tail: str) -> None:
    digits = "4" + tail
    valid = [last for last in "0123456789" if is_card_number(digits + last)]
    assert valid == [luhn_digit(digits)]


@pytest.mark.parametrize("number", ["", "4", "4" * 12, "4" * 20, "1" * 16, "4111111111111112"])
def test_what_is_no_card_number(number: str) -> None:
    assert not is_card_number(number)


@given(st.text())
def test_any_text_can_be_searched_and_a_match_is_part_of_plain_text(text: str) -> None:
    for match in find_personal_data(text).values():
        assert not text.isascii() or match in text


@given(st.text(), st.randoms(use_true_random=False))
def test_values_of_one_shape_have_one_mask(text: str, source: random.Random) -> None:
    other = "".join(
        source.choice("abcxyz") if c.isalpha() else source.choice("0123456789") if c.isnumeric() else c
        for c in text
    )
    assert mask(text) == mask(other)
    assert set(mask(text)) <= set("x9@.+-()/: ?\u2026")


def test_a_long_value_is_cut() -> None:
    assert mask("a" * 1000) == "x" * 40 + "\u2026"


@pytest.mark.parametrize(
    "piece",
    [
        "a",
        "1",
        "1 ",
        "a@",
        "@1.",
        "+1",
        "1111 ",
        "DE11 ",
        "DE11",
        "1:",
        "1.",
        "1-",
        "a.",
        "x@y.",
        "(",
        "\u0661",
    ],
)
def test_a_hostile_cell_takes_linear_time(piece: str) -> None:
    def seconds(length: int) -> float:
        text = (piece * length)[:length]
        started = time.perf_counter()
        find_personal_data(text)
        return time.perf_counter() - started

    short = min(seconds(20_000) for _ in range(3))
    assert seconds(200_000) < 50 * max(short, 0.002)  # quadratic would be 100 times
