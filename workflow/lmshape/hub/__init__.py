"""Published training runs: the places, the commits and the download of their checkpoints."""
