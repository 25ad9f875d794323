"""How every page is made from a template: all that is put in is escaped, and what is missing is an error."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined


def html_templates(package: str = "airlock.reporting", *, keep_trailing_newline: bool = False) -> Environment:
    """The templates of a package; the caller may add filters, and keeps it if it renders often."""
    return Environment(
        loader=PackageLoader(package),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=keep_trailing_newline,
    )
