"""Pages from the templates beside this file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from penchant.core.errors import MissingExtra


def render_page(name: str, filters: Mapping[str, Callable[..., str]], values: Mapping[str, object]) -> str:
    """Fill one template in; a value that it asks for and is not given is an error.

    Raises:
        MissingExtra: matplotlib, which pages draw their plots with, is not installed.
    """
    try:
        import jinja2
        import matplotlib as mpl  # noqa: F401
    except ImportError:
        raise MissingExtra("report", "the HTML report with plots") from None
    engine = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    engine.filters.update(filters)
    return engine.get_template(name).render(values)
