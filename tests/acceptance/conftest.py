"""The fixtures of the acceptance tests, from a module that no other folder's conftest shadows."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))

from conftest_of_acceptance import finished, real_hub  # noqa: E402

__all__ = ["finished", "real_hub"]
