"""`python -m lmshape`: the same as the `lmshape` command."""

from lmshape.cli import main

main()
