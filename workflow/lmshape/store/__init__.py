"""The files of a cell: tokens, activations, statistics, loss card. No other package knows their layouts."""

from lmshape.store.activations import Activations, ActivationWriter
from lmshape.store.hdf5 import FORMAT_VERSION, Attributes
from lmshape.store.loss_card import DrawLoss, write_loss_card
from lmshape.store.rows import Rows
from lmshape.store.site import Site
from lmshape.store.statistics import (
    LayerStatistics,
    read_statistics,
    read_statistics_attributes,
    write_statistics,
)
from lmshape.store.token_file import read_tokens, write_tokens

__all__ = [
    "FORMAT_VERSION",
    "ActivationWriter",
    "Activations",
    "Attributes",
    "DrawLoss",
    "LayerStatistics",
    "Rows",
    "Site",
    "read_statistics",
    "read_statistics_attributes",
    "read_tokens",
    "write_loss_card",
    "write_statistics",
    "write_tokens",
]
