"""The CEL library without its command line."""

from __future__ import annotations

import sys
from functools import cache
from types import ModuleType
from typing import Any


@cache
def load_cel() -> Any:  # the library ships no types
    """The library ``cel``.

    Its ``__init__`` imports its own command line, and with it prompt_toolkit, which takes longer than
    everything else a preflight of files imports. An empty module stands in for it.
    """
    sys.modules.setdefault("cel.cli", ModuleType("cel.cli"))
    import cel

    return cel
