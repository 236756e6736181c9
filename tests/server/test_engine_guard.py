"""No engine outlives the backend, however the backend ends: with real processes that ignore SIGTERM."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

# What vLLM does: a child of its own that does not end when it is asked to.
STUBBORN = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"])
time.sleep(600)
"""
# The backend: it starts the guard with a pipe and then waits to be killed.
PARENT = """
import subprocess, sys, time
guard = subprocess.Popen([sys.executable, "-m", "server.engine_guard", "0.5", sys.executable, "-c", sys.argv[1]],
                         stdin=subprocess.PIPE, start_new_session=True)
print(guard.pid, flush=True)
time.sleep(600)
"""


def members(group):
    return [p for p in psutil.process_iter() if _group(p.pid) == group and p.status() != psutil.STATUS_ZOMBIE]


def _group(pid):
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return None


def wait_for(predicate, seconds=15):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if predicate():
            return True
        time.sleep(0.05)
    return False


@pytest.fixture
def backend():
    parent = subprocess.Popen([sys.executable, "-c", PARENT, STUBBORN], stdout=subprocess.PIPE, text=True)
    group = int(parent.stdout.readline())
    assert parent.stdout.readline() == "up\n"
    assert len(members(group)) == 3
    yield parent, group
    parent.kill()
    parent.wait()
    parent.stdout.close()
    for process in members(group):
        process.kill()


def test_a_killed_backend_leaves_no_engine(backend):
    parent, group = backend
    parent.kill()
    assert wait_for(lambda: not members(group))


def test_a_backend_asked_to_end_leaves_no_engine(backend):
    parent, group = backend
    parent.terminate()
    assert wait_for(lambda: not members(group))


def test_sigterm_to_the_guard_ends_the_group(backend):
    _, group = backend
    os.kill(group, signal.SIGTERM)
    assert wait_for(lambda: not members(group))


def test_an_engine_that_crashes_takes_its_children_along(backend):
    _, group = backend
    engine = psutil.Process(group).children()[0]
    engine.kill()
    assert wait_for(lambda: not members(group))
