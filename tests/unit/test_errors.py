"""Errors: each says what happened, where, and what to do, in every process it is carried to."""

from __future__ import annotations

import copy
import inspect
import pickle
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airlock.core import errors
from airlock.core.errors import AirlockError, ConfigurationError, NotFoundError, RefusedError

TREE = [
    error
    for _, error in inspect.getmembers(errors, inspect.isclass)
    if issubclass(error, AirlockError) and error.__module__ == errors.__name__
]


@pytest.mark.parametrize("error", TREE)
@given(what=st.text(), where=st.text(), fix=st.text())
def test_an_error_survives_pickling_and_copying(
    error: type[AirlockError], what: str, where: str, fix: str
) -> None:
    original = error(what, where=where, fix=fix)
    for other in (pickle.loads(pickle.dumps(original)), copy.copy(original), copy.deepcopy(original)):
        assert type(other) is error
        assert (other.what, other.where, other.fix, str(other)) == (what, where, fix, str(original))


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (AirlockError("no such model"), "no such model"),
        (AirlockError("no such model", where="a.yaml"), "no such model [a.yaml]"),
        (AirlockError("no such model", fix="register it"), "no such model. How to fix it: register it"),
        (
            AirlockError("no such model", where="a.yaml", fix="register it"),
            "no such model [a.yaml]. How to fix it: register it",
        ),
    ],
)
def test_the_text_says_what_where_and_how_to_fix_it(error: AirlockError, text: str) -> None:
    assert str(error) == text


def test_where_and_fix_are_named_so_that_they_cannot_be_mixed_up() -> None:
    with pytest.raises(TypeError):
        AirlockError("what", "where")  # type: ignore[misc]


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    drawn = re.findall(r"[├└]── (\w+)", errors.__doc__ or "")
    assert sorted(drawn) == sorted(error.__name__ for error in TREE if error is not AirlockError)
    assert all(error.__bases__ == (AirlockError,) for error in TREE if error is not AirlockError)


def test_exit_codes_are_those_of_the_command_line() -> None:
    """1 error, 2 usage, 3 denied; 0 and 4 are no errors."""
    assert {error.exit_code for error in TREE} == {1, 2, 3}
    assert RefusedError.exit_code == 3
    assert ConfigurationError.exit_code == NotFoundError.exit_code == 2
