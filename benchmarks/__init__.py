"""The measuring engine beside its peers, on real activations: `make bench` writes docs/benchmarks.md.

Peers and models are not dependencies of the project. They lie below `.bench/`, where `make bench` installs them, and
stand last on the path, so that no package of the project's own environment is replaced by theirs.
"""

from __future__ import annotations

import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
BENCH = REPOSITORY / ".bench"
PEERS = BENCH / "peers"

sys.path.append(str(PEERS))
