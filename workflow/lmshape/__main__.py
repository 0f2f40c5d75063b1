"""`python -m lmshape`: the same as the `lmshape` command."""

from lmshape.commands.cli import app

app()
