"""The explorer: one page in which a reader walks through the study's numbers; it needs no server and no network.

`numbers` packs values with their intervals into few bytes, `contents` lays the study out for the page, `page` puts
page, programs and plotly.js into one file.
"""

from lmshape.explore.page import build_explorer

__all__ = ["build_explorer"]
