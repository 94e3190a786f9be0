"""Environment variables, the cores of this process, and home folders.

The only module that reads or sets environment variables. It imports no TensorFlow.
"""

import contextlib
import glob
import os
import shutil
import subprocess
from collections.abc import Iterator

# If there is no NVIDIA device, TensorFlow's CUDA builds still look for one and
# print these lines as they load, before they read any setting.
_CHATTER = (
    r"^WARNING: All log messages before absl::InitializeLog\(\)|^I0000 "
    "|failed call to cuInit|Unable to register cu[A-Z]+ factory"
    "|computation placer already registered"
)


def num_cores() -> int:
    """Cores that this process may run on: at least 1, maybe fewer than exist."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def expanded(path: str | os.PathLike[str]) -> str:
    """Returns a user's path with the home folder for a leading `~` or `~user`."""
    return os.path.expanduser(os.fspath(path))


def wants_full_tracebacks() -> bool:
    """Whether the user wants to see frames of this package in tracebacks."""
    return os.environ.get("MGPU_FULL_TRACEBACK", "0") not in ("", "0")


def visible_cuda_devices() -> str:
    """The GPUs that CUDA may see, as the driver's tools take them; "" for all."""
    return os.environ.get("CUDA_VISIBLE_DEVICES", "")


def uses_onednn() -> bool:
    """Whether TensorFlow may use oneDNN, which its wheels for Linux do by default."""
    return os.environ.get("TF_ENABLE_ONEDNN_OPTS", "1") not in ("0", "false")


def ray_address() -> str | None:
    """The cluster that Ray's own programs join, such as a job submitted to it."""
    return os.environ.get("RAY_ADDRESS") or None


def prepare_ray() -> None:
    """Keeps Ray quiet unless the user says otherwise; call before importing Ray."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    # It prints this on the standard output. A process that dies is replaced, or
    # an error or a warning says that it was not.
    died = "A worker died or was killed while executing a task"
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", died)


def keep_ray_private() -> None:
    """Keeps a Ray that is about to start here from writing to the home folder."""
    # An authentication token, which Ray that listens only on the loopback interface
    # does not need. A cluster that is joined may need it.
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")


@contextlib.contextmanager
def quiet_start() -> Iterator[None]:
    """Hides TensorFlow's start-up chatter, but neither warnings nor errors.

    CUDA's complaint about a missing GPU is chatter. A `grep` filters standard error: it
    survives a crash of this process, so no last words are lost. A user's
    `TF_CPP_MIN_LOG_LEVEL` takes precedence.
    """
    chosen = "TF_CPP_MIN_LOG_LEVEL" in os.environ
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    has_nvidia = glob.glob("/dev/nvidia*") or os.path.exists("/dev/dxg")
    if chosen or has_nvidia or shutil.which("grep") is None:
        yield
    else:
        with _without_lines(_CHATTER):
            yield


@contextlib.contextmanager
def _without_lines(pattern: str) -> Iterator[None]:
    """Drops the lines that match from file descriptor 2."""
    stderr = os.dup(2)
    # A session of its own: an interrupt from the keyboard must not end the filter.
    filter_process = subprocess.Popen(
        ["grep", "--line-buffered", "-v", "-E", pattern],
        stdin=subprocess.PIPE,
        stdout=stderr,
        start_new_session=True,
    )
    assert filter_process.stdin is not None
    os.dup2(filter_process.stdin.fileno(), 2)
    filter_process.stdin.close()
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        filter_process.wait()
