"""Scripts in unusual environments give the results of the plain model."""

import pathlib
import shutil
import subprocess
import sys
import tempfile

import keras
import numpy as np
import pytest
from command_line import DIGITS, IMAGES, environment

ROOT = pathlib.Path(__file__).parents[1]
SCRIPT = ROOT / "tests" / "in_environment.py"
OLD_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
# Permissions apply to root only without these capabilities.
PLAIN_ROOT = "setpriv --bounding-set=-dac_override,-dac_read_search"
# A user who may read the interpreter, wherever it is, and is in no list of users.
NOBODY = (
    "setpriv --reuid=54321 --regid=54321 --clear-groups "
    "--inh-caps=+dac_read_search --ambient-caps=+dac_read_search"
)
CASES = {
    "as it is": {},
    "no input": {"streams": "<&-"},
    "no output": {"streams": ">&-"},
    "no error": {"streams": "2>&-"},
    "no stream": {"streams": "<&- >&- 2>&-"},
    "a full disk": {"streams": "> /dev/full 2> /dev/full"},
    "nobody reads": {"streams": "| true"},
    "an old locale": {"env": OLD_LOCALE},
    "ascii": {"env": {"PYTHONIOENCODING": "ascii"}},
    "no home": {"env": {"HOME": None, "USER": None, "LOGNAME": None}},
    "a home that is not there": {"env": {"HOME": "/nonexistent"}},
    "read-only folders": {"start": PLAIN_ROOT, "read_only": True},
    "another user": {
        "start": NOBODY,
        "env": {"HOME": None, "USER": None, "LOGNAME": None},
        "read_only": True,
    },
    "warnings are errors": {"flags": "-W error"},
    "no docstrings": {"flags": "-OO"},
    "isolated": {"flags": "-I"},
    "a folder of another name": {"package": "ein größerer Ordner, 'neu'"},
    "no folder for temporary files": {"env": {"TMPDIR": "/nonexistent"}},
}


def can_start(words):
    """Whether a command can be run that way on this machine, by this user."""
    try:
        done = subprocess.run([*words.split(), sys.executable, "-c", ""])
    except FileNotFoundError:
        return False
    return done.returncode == 0


@pytest.fixture(scope="module")
def expected():
    return keras.models.load_model(DIGITS).predict(np.load(IMAGES), 256, verbose=0)


@pytest.fixture
def folder(tmp_path):
    """A folder that every user may enter and write to."""
    temporary = pathlib.Path(tempfile.gettempdir())
    for path in (tmp_path, *tmp_path.parents):
        if temporary in path.parents:
            path.chmod(0o777)
    yield tmp_path
    subprocess.run(["chmod", "-R", "u+w", str(tmp_path)], check=True)


def packed(folder, name, *, read_only):
    """A copy of the package and of its inputs, without compiled modules."""
    ignored = shutil.ignore_patterns("__pycache__")
    package = folder / name
    shutil.copytree(
        ROOT / "keras_mgpu_strategy", package / "keras_mgpu_strategy", ignore=ignored
    )
    inputs = [shutil.copy(path, package) for path in (DIGITS, IMAGES)]
    if read_only:
        subprocess.run(["chmod", "-R", "a-w", str(package)], check=True)
    return package, inputs


@pytest.mark.parametrize("case", CASES)
def test_the_rows_of_the_plain_model(case, expected, folder):
    how = CASES[case]
    start, read_only = how.get("start", ""), how.get("read_only", False)
    if start and not can_start(start):
        pytest.skip("needs root and setpriv")
    package, inputs = packed(folder, how.get("package", "p"), read_only=read_only)
    results = folder / "results"
    results.mkdir()
    results.chmod(0o777)
    words = [*start.split(), sys.executable, *how.get("flags", "").split()]
    words += map(str, [SCRIPT, package, *inputs, results / "würfe.npy", results])
    env = environment(**how.get("env", {}))
    process = subprocess.run(
        ["bash", "-o", "pipefail", "-c", f'"$@" {how.get("streams", "")}', "-", *words],
        cwd=package,
        env={name: value for name, value in env.items() if value is not None},
        capture_output=True,
        timeout=300,
    )
    assert process.returncode == 0, process.stderr.decode(errors="replace")
    for name in ("in_memory.npy", "würfe.npy"):
        np.testing.assert_allclose(np.load(results / name), expected, 1e-5, 1e-6)
    in_csv = np.loadtxt(results / "o.csv", delimiter=",", skiprows=1)[:, 1:]
    np.testing.assert_allclose(in_csv, expected, 1e-5, 1e-6)
