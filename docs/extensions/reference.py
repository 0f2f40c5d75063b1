"""Directives that write the reference from the code: metrics, claims, columns, commands, captions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from captions import FigureCaption
from claims_of import ClaimList
from commands import CommandList, CommandSections
from metrics_of import MetricDefinitions
from tables_of import TableColumns

if TYPE_CHECKING:
    from sphinx.application import Sphinx


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directives with Sphinx."""
    app.add_directive("metric-definitions", MetricDefinitions)
    app.add_directive("table-columns", TableColumns)
    app.add_directive("command-list", CommandList)
    app.add_directive("command-sections", CommandSections)
    app.add_directive("claim-list", ClaimList)
    app.add_directive("figure-caption", FigureCaption)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
