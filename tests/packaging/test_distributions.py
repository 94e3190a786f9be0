"""The wheel and the sdist: their content, and that they work outside the checkout."""

import email
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import zipfile

import pytest

from keras_mgpu_strategy.version import __version__

ROOT = pathlib.Path(__file__).parents[2]
PACKAGE = "keras_mgpu_strategy"
EXAMPLES = ROOT / "docs" / "examples"
# Outputs of other commands, which are not in a clone.
NOT_SOURCE = ("__pycache__", "*.egg-info", ".[!c]*", ".coverage*", "build", "dist")
pytestmark = pytest.mark.slow


def run(*command, cwd, **variables):
    result = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory):
    """A folder with the sdist and the wheel, each built from the source tree.

    They are built with installed packages: an isolated environment would take longer
    than the rest of this file.
    """
    folder = tmp_path_factory.mktemp("packaging")
    ignored = shutil.ignore_patterns(*NOT_SOURCE)
    shutil.copytree(ROOT, folder / "source", ignore=ignored)
    flags = ("--no-isolation", "--sdist", "--wheel", "--outdir=../dist")
    run(sys.executable, "-m", "build", *flags, cwd=folder / "source")
    return folder / "dist"


@pytest.fixture(scope="module")
def source(dist):
    return dist.parent / "source"


@pytest.fixture(scope="module")
def wheel(dist):
    return dist / f"{PACKAGE}-{__version__}-py3-none-any.whl"


@pytest.fixture(scope="module")
def sdist(dist):
    return dist / f"{PACKAGE}-{__version__}.tar.gz"


def content(wheel):
    """Name -> bytes of each file of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def paths(folder, pattern, source):
    """Names of files in a folder of the source tree."""
    found = (source / folder).rglob(pattern)
    return {path.relative_to(source).as_posix() for path in found if path.is_file()}


def test_the_wheel_holds_the_package_and_no_more(wheel, source):
    modules = paths(PACKAGE, "*.py", source)
    beside = f"{PACKAGE}-{__version__}.dist-info"
    files = content(wheel)
    assert files.keys() == modules | {
        f"{PACKAGE}/py.typed",
        f"{beside}/METADATA",
        f"{beside}/RECORD",
        f"{beside}/WHEEL",
        f"{beside}/entry_points.txt",
        f"{beside}/licenses/LICENSE",
        f"{beside}/top_level.txt",
    }
    assert files[f"{beside}/licenses/LICENSE"] == (ROOT / "LICENSE").read_bytes()
    assert files[f"{beside}/top_level.txt"].decode().split() == [PACKAGE]


def test_the_metadata_says_what_is_needed(wheel):
    text = content(wheel)[f"{PACKAGE}-{__version__}.dist-info/METADATA"].decode()
    metadata = email.message_from_string(text)
    required = metadata.get_all("Requires-Dist", [])
    needed = {item for item in required if "extra ==" not in item}
    assert needed == {"absl-py", "numpy", "tensorflow>=2.18"}
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] or metadata["License"] == "Apache-2.0"
    assert "mgpu predict" in metadata.get_payload()


def test_the_sdist_builds_the_same_wheel(wheel, sdist, tmp_path):
    flags = ("--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir=again")
    run(sys.executable, "-m", "pip", "wheel", *flags, sdist, cwd=tmp_path)
    (again,) = (tmp_path / "again").iterdir()
    assert again.name == wheel.name
    assert content(again) == content(wheel)


def test_the_sdist_holds_what_the_suite_needs(sdist, source):
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert paths("tests", "*.py", source) <= names
    assert paths("docs/examples", "*", source) <= names
    assert {"LICENSE", "README.md", "CHANGELOG.md", "noxfile.py", ".ci/run"} <= names
    assert not [name for name in names if "__pycache__" in name]


def test_the_wheel_works_outside_the_checkout(wheel, tmp_path):
    site, work = tmp_path / "site", tmp_path / "work"
    work.mkdir()
    # TensorFlow is already installed, next to the package that must not be used.
    flags = ("--no-deps", "--no-index", "--no-compile", f"--target={site}")
    run(sys.executable, "-m", "pip", "install", *flags, wheel, cwd=work)
    used = run(
        *(sys.executable, "-c", f"import {PACKAGE}; print({PACKAGE}.__file__)"),
        cwd=work,
        PYTHONPATH=str(site),
    )
    assert pathlib.Path(used.strip()).is_relative_to(site)
    command = [sys.executable, site / "bin" / "mgpu"]
    assert "mgpu predict" in run(*command, "--help", cwd=work, PYTHONPATH=str(site))
    printed = run(
        *(*command, "predict", EXAMPLES / "digits.keras"),
        *(EXAMPLES / "digits_images.npy", "--output=probabilities.npy"),
        f"--labels={EXAMPLES / 'digits_labels.npy'}",
        cwd=work,
        PYTHONPATH=str(site),
    )
    assert "accuracy  0.9917" in printed
    assert (work / "probabilities.npy").exists()
