"""Rule conditions in CEL, the Common Expression Language of Kubernetes admission policies.

It always terminates and has no I/O, so a rule can neither hang a release nor look elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from airlock.core.errors import ConfigurationError, InvalidInputError


@lru_cache(maxsize=4096)
def _compile(condition: str) -> Any:  # the library ships no types
    import cel

    try:
        return cel.compile(condition)
    except ValueError as error:
        raise ConfigurationError(
            f"not a CEL expression: {str(error).splitlines()[0]}",
            where=condition,
            fix="correct the rule's `when`",
        ) from error


class CelEngine:
    """Evaluates conditions; anything but true or false is an error."""

    def evaluate(self, condition: str, facts: Mapping[str, Any]) -> bool:
        """True or false.

        Raises:
            InvalidInputError: a missing fact, a type error, or a result that is not a boolean.
        """
        import cel

        program = _compile(condition)
        try:
            result = program.execute(cel.Context(variables=dict(facts)))
        except Exception as error:  # the library raises KeyError, TypeError, RuntimeError and its own
            raise InvalidInputError(f"fact missing or of the wrong type: {error}", where=condition) from error
        if not isinstance(result, bool):
            raise InvalidInputError(f"the condition gives {result!r}, not true or false", where=condition)
        return result
