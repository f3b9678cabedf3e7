import platform
import subprocess
import sys

# Takes and frees what a step may; prints the pages that the system had to fill meanwhile.
AGAIN = """
import resource, sys
import numpy as np
from train.model.memory import keep_freed
taken = keep_freed()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def step():
    return [np.ones(size, np.uint8) for size in (100_000, 1_000_000, 2_500_000, 500_000, 8_000_000)]
step()
before = faults()
for _ in range(50):
    step()
print(taken, faults() - before)
"""


def test_memory_that_is_freed_is_taken_again() -> None:
    done = subprocess.run([sys.executable, "-c", AGAIN], check=True, capture_output=True, text=True)
    taken, faults = done.stdout.split()
    assert (taken == "True") == (platform.libc_ver()[0] == "glibc")
    if taken == "True":
        assert int(faults) < 500  # a page at a time 150,000
