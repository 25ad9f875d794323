"""Words in the names of columns."""

from __future__ import annotations

import re
import unicodedata


def name_tokens(name: str) -> list[str]:
    """The words of a column name: ``zipCode2`` and ``ZIP_code-2`` are ``zip``, ``code``, ``2``."""
    plain = "".join(
        character for character in unicodedata.normalize("NFKD", name) if not unicodedata.combining(character)
    )
    return [token.casefold() for token in _TOKEN.findall(_CAMEL.sub(" ", plain))]


_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_TOKEN = re.compile(r"[^\W\d_]+|\d+")


def says(name: str, word: str) -> bool:
    """Whether a column name has ``word`` in it as a whole word, singular or plural.

    Law: ``zip`` is in ``zip_code``, ``homeZip`` and ``zips``, and not in ``unzipped``.
    """
    tokens, wanted = name_tokens(name), "".join(name_tokens(word))
    runs = ("".join(tokens[i:j]) for i in range(len(tokens)) for j in range(i + 1, len(tokens) + 1))
    return any(run in {wanted, f"{wanted}s", f"{wanted}es"} for run in runs)
