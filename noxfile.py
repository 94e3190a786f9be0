"""Environments in which the package must work.

`nox` makes them and tests in each; `nox --list` names them. An interpreter that is not
installed is skipped with a word; `--error-on-missing-interpreters` makes it an error.
Each environment takes about 2 GB under `.nox/`, or where `--envdir` says.
"""

import pathlib
import shutil

import nox

nox.needs_version = ">=2024.4.15"
nox.options.error_on_missing_interpreters = False

PYTHONS = ("3.11", "3.12", "3.13")
"""Those that TensorFlow has wheels for."""

TESTERS = ("pytest>=8", "pytest-xdist")
REDUCED = "-3] or smoke"
"""What `oldest` runs of the conformance tests.

Three replicas leave every number of rows over that two or four can leave, and 1, which
is what goes wrong between versions of Keras: replicas on few rows and on none. The
models are all of the zoo.
"""

VERSIONS = {
    "newest": (("-e", "."), {}),
    "oldest": (("-e", ".", "--constraint=tests/versions/oldest.txt"), {}),
    "legacy": (("-e", ".[legacy]"), {"TF_USE_LEGACY_KERAS": "1"}),
}
"""Name -> what pip installs, and variables of the environment."""

EXAMPLES = pathlib.Path(__file__).parent / "docs" / "examples"
PREDICT = (
    *("predict", str(EXAMPLES / "digits.keras"), str(EXAMPLES / "digits_images.npy")),
    *("--output=probabilities.npy", "--overwrite"),
    f"--labels={EXAMPLES / 'digits_labels.npy'}",
)
ACCURACY = "accuracy  0.9917 (1,782 of 1,797)"
SUFFIXES = {"wheel": "*.whl", "sdist": "*.tar.gz"}


def conform(session: nox.Session, name: str, *arguments: str) -> None:
    """Runs the conformance tests with the versions that go by a name."""
    requirements, variables = VERSIONS[name]
    session.install(*requirements, *TESTERS, "scipy")
    session.run("python", "-m", "pip", "freeze", silent=False)
    session.run(
        *("python", "-m", "pytest", "-m", ""),
        *("tests/conformance", "tests/versions/smoke.py"),
        *arguments,
        *session.posargs,
        env=variables,
    )


@nox.session(python=PYTHONS)
@nox.parametrize(
    "versions", [nox.param(name, id=name, tags=[name]) for name in VERSIONS]
)
def conformance(session: nox.Session, versions: str) -> None:
    """Every model x replicas x batch size x row count, against the plain model."""
    conform(session, versions)


@nox.session(default=False)
def oldest(session: nox.Session) -> None:
    """A part of `conformance` with the oldest versions, on this Python."""
    conform(session, "oldest", "-k", REDUCED)


@nox.session
def core(session: nox.Session) -> None:
    """What works without any extra, and what is said of the rest."""
    session.install("-e", ".", *TESTERS)
    session.run(
        *("python", "-m", "pytest"),
        *("tests/versions/smoke.py", "tests/versions/core.py"),
        *session.posargs,
    )


@nox.session
@nox.parametrize("kind", ["wheel", "sdist"])
def package(session: nox.Session, kind: str) -> None:
    """Installs what is built, with all it depends on, and uses it elsewhere."""
    folder = pathlib.Path(session.create_tmp()).resolve()
    shutil.rmtree(folder / "dist", ignore_errors=True)
    session.install("build")
    session.run("python", "-m", "build", f"--outdir={folder / 'dist'}")
    (built,) = (folder / "dist").glob(SUFFIXES[kind])
    session.install(str(built))
    with session.chdir(folder):
        session.run("mgpu", "--help", silent=True)
        session.run("mgpu", "devices")
        printed = session.run("mgpu", *PREDICT, silent=True)
    if ACCURACY not in str(printed):
        session.error(f"mgpu predict printed no {ACCURACY!r}:\n{printed}")
    session.install(*TESTERS, "setuptools>=77")
    session.run("python", "-m", "pytest", "-m", "", "tests/packaging", *session.posargs)
