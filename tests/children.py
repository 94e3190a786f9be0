"""New processes for tests, forked from one that has loaded TensorFlow.

`start` returns in milliseconds and its function runs within a second; a new interpreter
would spend several seconds loading TensorFlow. The functions must be in modules that a
test can import, and their arguments must be picklable.
"""

import multiprocessing

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.children_setup"])


def start(function, *arguments):
    """Starts a function in a new process; returns the process."""
    process = _CONTEXT.Process(target=function, args=arguments)
    process.start()
    return process


def end_of(process, timeout=300):
    """Waits for a process; returns its exit code."""
    process.join(timeout)
    if process.is_alive():
        process.kill()
        process.join()
        raise AssertionError("the process did not end")
    return process.exitcode


def run(function, *arguments):
    """Runs a function in a new process, which must exit with 0."""
    code = end_of(start(function, *arguments))
    assert code == 0, f"exit code {code}"
