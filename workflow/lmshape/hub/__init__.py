"""Published training runs: where their checkpoints lie, what stands behind each name, and how it gets here."""
