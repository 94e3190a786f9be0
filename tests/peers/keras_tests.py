"""Keras' own tests: where they are, which of them predict, and how one is run.

Guarantees:

* The tests are read from an installation of Keras; none of them is kept here.
* A test is run as by `unittest`, with its own `setUp` and clean-up. What it sets for
  the whole process is restored.
"""

import contextlib
import dataclasses
import importlib.util
import inspect
import pathlib
import re
import sys
import types
import unittest
import warnings
from collections.abc import Iterator

import keras

_PREDICTS = re.compile(r"\bpredict(_on_batch)?\b")
_STAND_INS = ("jax",)
"""Packages that a file imports whole for tests of other backends than ours."""


@dataclasses.dataclass(frozen=True)
class PeerTest:
    """One test of Keras.

    Args:
        case: Its class.
        method: Its name in the class.
    """

    case: type[unittest.TestCase]
    method: str

    @property
    def name(self) -> str:
        return f"{self.case.__name__}.{self.method}"


class Result(unittest.TestResult):
    """Keeps the errors themselves; `unittest` keeps only their text."""

    def __init__(self) -> None:
        super().__init__()
        self.raised: list[BaseException] = []

    def addError(self, test, err):
        super().addError(test, err)
        self._keep(err)

    addFailure = addError

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        if err:
            self._keep(err)

    def _keep(self, err):
        assert err[1] is not None
        self.raised.append(err[1])


def predicting_tests(path: pathlib.Path) -> list[PeerTest]:
    """The tests of a file that name `predict` and are meant for TensorFlow."""
    if not _PREDICTS.search(path.read_text()):
        return []
    members = vars(_module(path)).values()
    cases = [
        member
        for member in members
        if isinstance(member, type) and issubclass(member, unittest.TestCase)
    ]
    load = unittest.TestLoader().getTestCaseNames
    tests = [PeerTest(case, method) for case in cases for method in load(case)]
    return [test for test in tests if _predicts(test) and not _is_skipped(test)]


def run(test: PeerTest, context: contextlib.AbstractContextManager) -> Result:
    """Runs a test, its body inside `context`, and leaves the process as it was."""
    filters_traceback = keras.config.is_traceback_filtering_enabled()
    result, case = Result(), test.case(test.method)
    # Not around all of it: Keras' `setUp` drops TensorFlow's stack of scopes.
    setattr(case, test.method, _inside(context, getattr(case, test.method)))
    # Warnings of Keras' own code and tests are not ours to judge.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        case.run(result)
    if filters_traceback:
        keras.config.enable_traceback_filtering()
    return result


def _inside(context, function):
    def call():
        with context:
            function()

    return call


def _module(path: pathlib.Path) -> types.ModuleType:
    name = f"keras_peer_{path.stem}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec and spec.loader, path
        module = importlib.util.module_from_spec(spec)
        with _stand_ins():
            spec.loader.exec_module(module)
        sys.modules[name] = module
    return sys.modules[name]


@contextlib.contextmanager
def _stand_ins() -> Iterator[None]:
    """Empty modules in place of packages that are missing, while a file is read."""
    missing = [name for name in _STAND_INS if importlib.util.find_spec(name) is None]
    sys.modules.update({name: types.ModuleType(name) for name in missing})
    try:
        yield
    finally:
        for name in missing:
            del sys.modules[name]


def _predicts(test: PeerTest) -> bool:
    """Decides by the source of the test, which parameterized tests share."""
    return bool(_PREDICTS.search(inspect.getsource(getattr(test.case, test.method))))


def _is_skipped(test: PeerTest) -> bool:
    """Whether Keras' own `pytest.mark.skipif` takes the test out on TensorFlow."""
    marked = (test.case, getattr(test.case, test.method))
    marks = [mark for part in marked for mark in getattr(part, "pytestmark", ())]
    return any(mark.name == "skipif" and mark.args[0] for mark in marks)
