"""Personal data in text: what can be told by its form, and how to show that it is there without showing it.

Only forms that can be checked are looked for; names and street addresses cannot be told from other words by
a rule. Every pattern takes time linear in the text, so that a hostile cell cannot hold a gate up.
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from airlock.core.national_ids import national_ids

_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u2060-\u2064\ufeff]")
_DASHES = re.compile("[\u2010-\u2015\u2212]")
_HINT = re.compile(r"[@\d]")

_EMAIL = re.compile(
    r"(?<![\w.%+-])[\w.%+-]{1,64}@(?:[\w-]{1,63}\.){1,8}[^\W\d_]{2,24}(?![\w-])"  # lengths: RFC 5321, 4.5.3.1
)
# Area 000, 666 and 900-999, group 00 and serial 0000 are never assigned: Social Security Administration,
# POMS RM 10201.035.
_SSN = re.compile(r"(?<![\w-])(?!000|666|9\d\d)\d{3}([- ])(?!00)\d{2}\1(?!0000)\d{4}(?![\w-])")
# ITU-T E.164: a plus sign and at most 15 digits. Without one: the North American plan, where no area or
# exchange code begins with 0 or 1.
_PHONE = re.compile(
    r"(?<![\w+])\+[1-9](?:[ ()./-]{0,2}\d){8,14}(?!\d)"
    r"|(?<![\w.+-])(?:1[-. ])?(?:\([2-9]\d{2}\) ?|[2-9]\d{2}[-.])[2-9]\d{2}[-.]\d{4}(?![\w-])"
)
_CARD = re.compile(
    r"(?<![\w.,])(?=(\d{13,19}(?!\w)|\d{4}([ -])\d{4}\2\d{4}\2\d{4}(?!\w)|\d{4}([ -])\d{6}\3\d{4,5}(?!\w)))"
)
# American Express, Diners, JCB 3; Visa 4; Mastercard 51-55 and 22-27; Discover, UnionPay, Maestro 5 and 6.
_CARD_PREFIX = re.compile(r"3[04-9]|4|5|6|2[2-7]")
_IBAN = re.compile(r"(?<![A-Za-z0-9])(?=([A-Za-z]{2}\d{2}(?: ?[A-Za-z0-9]){11,30}))")
_IBAN_LENGTHS = {
    country: int(length)
    for country, length in re.findall(
        r"([A-Z]{2})(\d{2})",
        "AD24AE23AL28AT20AZ28BA20BE16BG22BH22BR29BY28CH21CR22CY28CZ24DE22DK18DO28EE20EG29ES24FI18FO18FR27GB22"
        "GE22GI23GL18GR27GT28HR21HU28IE22IL23IQ23IS26IT27JO30KW30KZ20LB28LC32LI21LT20LU20LV21LY25MC27MD24ME22"
        "MK19MR27MT31MU30NL18NO15PK24PL28PS29PT25QA29RO24RS22SA24SC31SE24SI19SK24SM27ST25SV28TL23TN24TR26UA29"
        "VA22VG24XK20",
    )
}
"""Length by country, from the IBAN registry of SWIFT (ISO 13616)."""
_IPV4 = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w.]|-\d)")
_IPV6 = re.compile(r"(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){3,7}[0-9A-Fa-f]{0,4}(?![\w:.])")


@dataclass(frozen=True)
class Detector:
    """One kind of personal data.

    Attributes:
        matches: every match in a text that was made ``plain``; checks lengths, ranges and check digits.
        coarse: a pattern, in the words of RE2, without which a text of ASCII has no match. It is looked
            for in all rows, the exact one only in what it leaves.
    """

    matches: Callable[[str], Iterator[str]]
    coarse: str


def plain(text: str) -> str:
    """A text as the detectors read it: without invisible characters, one kind of dash, plain digits."""
    if text.isascii():
        return text
    return _DASHES.sub("-", _INVISIBLE.sub("", unicodedata.normalize("NFKC", text)))


def find_personal_data(text: str) -> dict[str, str]:
    """The first match of each kind of personal data in ``text``, by the kind's name in words."""
    text = plain(text)
    if not _HINT.search(text):
        return {}
    firsts = ((kind, next(detector.matches(text), "")) for kind, detector in DETECTORS.items())
    return {kind: match for kind, match in firsts if match}


def mask(text: str) -> str:
    """The shape of a value: letters become ``x``, digits ``9``, anything unusual ``?``.

    Law: two values of one shape have one mask, so nothing can be read back from it.
    """
    shape = "".join(
        "x"
        if character.isalpha()
        else "9"
        if character.isnumeric()
        else character
        if character in "@.+-()/: "
        else "?"
        for character in text[:_MASK_LENGTH]
    )
    return shape if len(text) <= _MASK_LENGTH else shape + "\u2026"


_MASK_LENGTH = 40


def is_card_number(digits: str) -> bool:
    """Whether these are digits of a payment card: prefix and length in use, and the Luhn check.

    Source: ISO/IEC 7812-1, annex B. One in ten random numbers passes the check.
    """
    if not looks_like_card(digits):
        return False
    doubled = (sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])
    return (sum(map(int, digits[::-2])) + sum(doubled)) % 10 == 0


def looks_like_card(digits: str) -> bool:
    """Whether prefix and length are those of a payment card, whatever the check digit."""
    return _SHORTEST_CARD <= len(digits) <= _LONGEST_CARD and bool(_CARD_PREFIX.match(digits))


_SHORTEST_CARD, _LONGEST_CARD = 13, 19


def _emails(text: str) -> Iterator[str]:
    return (match[0] for match in _EMAIL.finditer(text)) if "@" in text else iter(())


def _cards(text: str) -> Iterator[str]:
    return (match[1] for match in _CARD.finditer(text) if is_card_number(re.sub("[ -]", "", match[1])))


def _ibans(text: str) -> Iterator[str]:
    for match in _IBAN.finditer(text):
        length = _IBAN_LENGTHS.get(match[1][:2].upper(), 0)
        ends = [end for end, character in enumerate(match[1], start=1) if character != " "]
        if not length or len(ends) < length:
            continue
        iban = match[1][: ends[length - 1]]
        end = match.start(1) + len(iban)
        if not text[end : end + 1].isalnum() and _has_iban_checksum(iban.replace(" ", "")):
            yield iban


def _has_iban_checksum(iban: str) -> bool:
    """ISO 7064, MOD 97-10: the first four characters to the end, letters as 10 to 35, remainder 1."""
    return int("".join(str(int(character, 36)) for character in iban[4:] + iban[:4])) % 97 == 1


def _addresses(text: str) -> Iterator[str]:
    for pattern in (_IPV4, _IPV6):
        for match in pattern.finditer(text):
            try:
                address = ipaddress.ip_address(match[0])
            except ValueError:
                continue
            if not (
                address.is_unspecified or address.is_loopback or address.is_multicast or address.is_reserved
            ):
                yield match[0]


DETECTORS: dict[str, Detector] = {
    "e-mail address": Detector(_emails, "@"),
    "US social security number": Detector(
        lambda text: (match[0] for match in _SSN.finditer(text)), r"\d{3}[- ]\d{2}[- ]\d{4}"
    ),
    "IBAN": Detector(_ibans, r"[A-Za-z]{2}\d{2}(?: ?[A-Za-z0-9]){11}"),
    "payment card number": Detector(_cards, r"\d{4}[- ]?\d{4}[- ]?\d{4}|\d{4}[- ]\d{6}[- ]\d{4}"),
    "phone number": Detector(
        lambda text: (match[0] for match in _PHONE.finditer(text)),
        r"\+[1-9][ ()./-]{0,2}\d|[2-9]\d{2}[-.) ]{1,2}[2-9]\d{2}[-.]\d{4}",
    ),
    "IP address": Detector(_addresses, r"\d\.\d{1,3}\.\d{1,3}\.\d|(?:[0-9A-Fa-f]{0,4}:){3}"),
    "national identity number": Detector(
        national_ids,
        r"[A-Z]{2} ?\d{2} ?\d{2} ?\d{2} ?[A-D]|[XYZ\d]\d{7}[- ]?[A-Z]|[A-Z]{6}[0-9L-V]{2}[A-T]"
        r"|[12] ?\d{2} ?\d{2} ?[\dAB]{2} ?\d{3} ?\d{3} ?\d{2}|\d{3}\.\d{3}\.\d{3}-\d{2}"
        r"|\d{4}[ -]\d{4}[ -]\d{4}",
    ),
}
"""Every kind of personal data that is looked for, by its name in words."""
