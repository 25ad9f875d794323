"""National identity numbers that can be told from other text, by check digits or a fixed form.

Numbers that are only nine or eleven bare digits are left out: every tenth measurement would be one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import cycle

# Prefixes that are never given out and the suffix A to D: HM Revenue & Customs, NIM39110.
_NINO = re.compile(
    r"(?<![A-Za-z0-9])(?!BG|GB|KN|NK|NT|TN|ZZ)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z]"
    r"(?: ?\d{2}){3} ?[A-D](?![A-Za-z0-9])"
)
_DNI = re.compile(r"(?<![A-Za-z0-9])([XYZ]\d{7}|\d{8})[- ]?([A-HJ-NP-TV-Z])(?![A-Za-z0-9])")
_DNI_LETTERS = "TRWAGMYFPDXBNJZSQVHLCKE"
_FISCALE = re.compile(
    r"(?<![A-Za-z0-9])[A-Z]{6}[0-9LMNP-V]{2}[ABCDEHLMPRST][0-9LMNP-V]{2}[A-Z][0-9LMNP-V]{3}[A-Z]"
    r"(?![A-Za-z0-9])"
)
# Value of a character at an odd place: decree of the Italian Ministry of Finance, 23 December 1976, table B.
_FISCALE_ODD = dict(
    zip(
        "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ",
        (
            *(1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 1, 0, 5, 7, 9, 13, 15, 17),
            *(19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23),
        ),
        strict=True,
    )
)
_INSEE = re.compile(
    r"(?<![\w.,-])([12]) ?(\d{2}) ?(0[1-9]|1[0-2]|[2-9]\d) ?(\d{2}|2[AB]) ?(\d{3}) ?(\d{3}) ?(\d{2})"
    r"(?![\w.,])"
)
_CPF = re.compile(r"(?<![\w.])\d{3}\.\d{3}\.\d{3}-\d{2}(?!\w)")
_AADHAAR = re.compile(r"(?<![\w.-])(?<!\d )[2-9]\d{3}([ -])\d{4}\1\d{4}(?![\w-]| \d)")


def _is_dni(match: re.Match[str]) -> bool:
    """Number modulo 23 is the place of the letter: Spanish Royal Decree 1553/2005, article 11."""
    return _DNI_LETTERS[int(match[1].translate(_NIE)) % 23] == match[2]


_NIE = str.maketrans("XYZ", "012")


def _is_fiscale(match: re.Match[str]) -> bool:
    text = match[0]
    odd = sum(_FISCALE_ODD[character] for character in text[0:15:2])
    even = sum(int(c) if c.isdigit() else ord(c) - ord("A") for c in text[1:15:2])
    return chr(ord("A") + (odd + even) % 26) == text[15]


def _is_insee(match: re.Match[str]) -> bool:
    """97 minus the number modulo 97; Corsica counts as 19 and 18 (French code, INSEE)."""
    department = {"2A": "19", "2B": "18"}.get(match[4], match[4])
    number = "".join((match[1], match[2], match[3], department, match[5], match[6]))
    return 97 - int(number) % 97 == int(match[7])


def _is_cpf(match: re.Match[str]) -> bool:
    """Two check digits modulo 11; eleven equal digits pass the sum and are never given out."""
    digits = [int(character) for character in match[0] if character.isdigit()]
    for end in (9, 10):
        total = sum(digit * weight for digit, weight in zip(digits[:end], range(end + 1, 1, -1), strict=True))
        if digits[end] != total * 10 % 11 % 10:
            return False
    return len(set(digits)) > 1


# Verhoeff, Error Detecting Decimal Codes (1969): the dihedral group of order 10 and its permutation.
_PERMUTATION = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)


def _product(left: int, right: int) -> int:
    turned = (left + right if left < 5 else left - right) % 5  # noqa: PLR2004 - from 5 on a reflection
    return turned + (5 if (left < 5) != (right < 5) else 0)  # noqa: PLR2004


def is_verhoeff(digits: str) -> bool:
    """Whether the last digit is the check digit of those before it."""
    check = 0
    powers = [tuple(range(10))]
    for _ in range(7):
        powers.append(tuple(_PERMUTATION[digit] for digit in powers[-1]))
    for digit, power in zip(reversed(digits), cycle(powers), strict=False):
        check = _product(check, power[int(digit)])
    return check == 0


def _is_aadhaar(match: re.Match[str]) -> bool:
    return is_verhoeff(re.sub(r"\D", "", match[0]))


_FORMS: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], bool]], ...] = (
    (_NINO, lambda _: True),
    (_DNI, _is_dni),
    (_FISCALE, _is_fiscale),
    (_INSEE, _is_insee),
    (_CPF, _is_cpf),
    (_AADHAAR, _is_aadhaar),
)


def national_ids(text: str) -> Iterator[str]:
    """National identity numbers in a text: British, Spanish, Italian, French, Brazilian and Indian."""
    for pattern, is_right in _FORMS:
        for match in pattern.finditer(text):
            if is_right(match):
                yield match[0]
