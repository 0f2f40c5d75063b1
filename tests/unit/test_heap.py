"""Freed memory that a process keeps."""

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource
import numpy as np
from lmshape.heap import keep_freed_memory

keep_freed_memory()
np.ones(2**23)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    np.ones(2**23)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(
    platform.libc_ver() < ("glibc", "2.35"), reason="others map beyond 32 MiB whatever is said"
)
def test_matrices_of_64_mib_take_the_pages_that_others_have_left() -> None:
    found = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    assert int(found.stdout) < 32  # pages of 2 MiB would be 160
