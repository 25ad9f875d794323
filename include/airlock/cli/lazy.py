"""Commands whose modules are imported when they are used: a quick command does not wait for the slow ones."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, MutableMapping
from typing import Any, ClassVar

import typer
import typer.main
from typer.core import TyperGroup


class LazyCommands(MutableMapping[str, Any]):
    """Commands by name, in order; those given as ``module:attribute`` are imported when asked for."""

    def __init__(self, places: Mapping[str, str], loaded: Mapping[str, Any]) -> None:
        self._places = dict(places)
        self._loaded = dict(loaded)

    def __getitem__(self, name: str) -> Any:
        if name not in self._loaded:
            self._loaded[name] = _load(name, self._places[name])
        return self._loaded[name]

    def __setitem__(self, name: str, command: Any) -> None:
        self._loaded[name] = command

    def __delitem__(self, name: str) -> None:
        self._places.pop(name, None)
        self._loaded.pop(name, None)

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys((*self._places, *self._loaded)))

    def __len__(self) -> int:
        return len({*self._places, *self._loaded})


def _load(name: str, place: str) -> Any:
    """The command at ``module:attribute``: a function, or a Typer with commands of its own."""
    module, _, attribute = place.partition(":")
    found = getattr(importlib.import_module(module), attribute)
    if isinstance(found, typer.Typer):
        command: Any = typer.main.get_group(found)
        command.name = name
        return command
    alone = typer.Typer(add_completion=False)
    alone.command(name)(found)
    return typer.main.get_command(alone)


class LazyGroup(TyperGroup):
    """A group of lazily imported commands; ``PLACES`` says where each one is."""

    PLACES: ClassVar[Mapping[str, str]] = {}

    def __init__(self, *, commands: Any = None, **attrs: Any) -> None:
        super().__init__(commands={}, **attrs)
        self.commands = LazyCommands(self.PLACES, commands or {})
