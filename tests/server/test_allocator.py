"""What the threads of the backend freed is the machine's again."""

import os
import platform
import subprocess
import sys

import pytest

# Threads that embed at once, as malloc sees them: large blocks, taken and freed again, some of them for a while.
CHILD = """
import sys, threading
import numpy as np, psutil
from server.allocator import give_memory_back

told = give_memory_back() if sys.argv[1] == "told" else True
before = psutil.Process().memory_info().rss
barrier = threading.Barrier(8)

def work():
    for size in (28, 20, 12, 8):  # MiB
        barrier.wait()
        block = np.ones(size << 17)
        barrier.wait()
        del block

threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(told, (psutil.Process().memory_info().rss - before) // 1_000_000)
"""


def kept_mb(how):
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    ran = subprocess.run(
        [sys.executable, "-c", CHILD, how], env=environment, check=True, capture_output=True, text=True
    )
    told, kept = ran.stdout.split()
    assert told == "True"
    return int(kept)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's malloc can be told")
def test_freed_memory_goes_back_to_the_machine():
    assert kept_mb("told") < 30
    assert kept_mb("not told") > 100
