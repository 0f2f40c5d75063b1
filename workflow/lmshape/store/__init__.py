"""The files of a cell: tokens, activations, statistics, loss card. No other package knows their layouts."""
