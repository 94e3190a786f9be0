"""Keras' own tests of `predict`, with Predictors' in its place.

A test passes if Keras' own assertions hold and a Predictor predicted, on 1, 2 and 3
replicas; or it ends as `differences.py` says. Environment variables:

* `KERAS_TESTS_ALL=1` runs the long ones too (about five minutes).
* `KERAS_TESTS` is the folder `keras` of a checkout of Keras' repository, for versions
  that are installed without their tests. Keras 3.15.1 is the first that has them.
"""

import os
import pathlib
import re
import unittest

import keras
import pytest
from packaging.version import Version

from tests.peers.differences import DIFFERENCES, NEVER_PREDICTS, difference_of, matches
from tests.peers.keras_tests import PeerTest, Result, predicting_tests, run
from tests.peers.replacing import CannotShareError, Ours

KERAS = pathlib.Path(os.environ.get("KERAS_TESTS", keras.__path__[0])) / "src"
REPLICAS = (1, 2, 3)
FEWEST_TESTS = {
    "trainers/trainer_test.py": 80,
    # Keras' tests of strategies create variables and train; none predicts so far.
    "backend/tensorflow/distribute_test.py": 0,
    "backend/tensorflow/optimizer_distribute_test.py": 0,
}
"""Files of tests, and how many in them are known to predict."""

HAVE_TESTS = all((KERAS / name).exists() for name in FEWEST_TESTS)
pytestmark = pytest.mark.skipif(
    not HAVE_TESTS and Version(keras.__version__) < Version("3.15.1"),
    reason=f"Keras {keras.__version__} came without its tests, and KERAS_TESTS names "
    "no checkout of its repository.",
)

LONG = [
    # Variants of how `fit` is compiled, which takes nearly all of their time.
    "TestTrainer.test_steps_per_*_eager",
    "TestTrainer.test_steps_per_*_jit",
    "TestTrainer.test_steps_per_execution_unrolled_*",
    # Small batches of an endless generator are joined to some thousand rows a batch.
    "TestTrainer.test_stop_loop_predict",
]
"""Tests that are run where they are asked for."""

NEVER_LONG = ["*_non_jit"]
"""Variants that are run at any rate."""

RANDOM = ["TestTrainer.test_rng_updated_during_predict"]
"""Tests whose results differ on purpose from call to call."""


def found(name):
    """The tests of a file; none if Keras came without its tests."""
    path = KERAS / name
    return predicting_tests(path) if path.exists() else []


TESTS = {name: found(name) for name in FEWEST_TESTS}
RUNS = [
    test
    for tests in TESTS.values()
    for test in tests
    if os.environ.get("KERAS_TESTS_ALL")
    or not matches(test.name, LONG)
    or matches(test.name, NEVER_LONG)
]


def ending_of(result: Result, num_calls: int) -> str:
    """How a test ended: "passes", or something else."""
    if result.raised:
        return f"{type(result.raised[0]).__name__}: {result.raised[0]}"
    if result.skipped:
        return f"skipped: {result.skipped[0][1]}"
    return "passes" if num_calls else NEVER_PREDICTS


def check(name: str, result: Result, num_calls: int) -> None:
    """Checks how a test ended against the table."""
    ending, difference = ending_of(result, num_calls), difference_of(name)
    if difference:
        assert re.search(difference.shows, ending), f"{ending}, not {difference}"
    elif ending != "passes":
        raise AssertionError(ending) from next(iter(result.raised), None)


def run_on(test: PeerTest, strategies) -> None:
    """Runs a test once, with predictions on all strategies; else once for each."""
    ours = Ours(strategies)
    result = run(test, ours.in_place_of_keras())
    if any(isinstance(error, CannotShareError) for error in result.raised):
        for strategy in strategies:
            run_on(test, [strategy])
    else:
        check(test.name, result, ours.num_calls)


@pytest.mark.parametrize("test", RUNS, ids=lambda test: test.name)
def test_of_keras(test, strategies):
    chosen = [strategies[num_replicas] for num_replicas in REPLICAS]
    alone = matches(test.name, RANDOM)
    for group in [[strategy] for strategy in chosen] if alone else [chosen]:
        run_on(test, group)


@pytest.mark.parametrize("name", FEWEST_TESTS)
def test_keras_has_its_tests(name):
    assert (KERAS / name).exists(), (
        f"Keras {keras.__version__} came without its tests. Name the folder `keras` of "
        "a checkout of its repository in the environment variable KERAS_TESTS."
    )
    assert len(TESTS[name]) >= FEWEST_TESTS[name]


@pytest.mark.parametrize("pattern", [*DIFFERENCES, *LONG, *NEVER_LONG, *RANDOM])
def test_every_pattern_names_a_test(pattern):
    names = [test.name for tests in TESTS.values() for test in tests]
    assert any(matches(name, [pattern]) for name in names)


class Example(unittest.TestCase):
    """Stands for a class of Keras' tests, to see that the runner can fail."""

    def predicts(self):
        layer = keras.layers.Rescaling(2.0)
        model = keras.Sequential([keras.Input((1,)), layer])
        assert model.predict(keras.ops.ones((3, 1)))[2, 0] == 2.0

    def expects_another_result(self):
        model = keras.Sequential([keras.Input((1,)), keras.layers.Rescaling(2.0)])
        assert model.predict(keras.ops.ones((3, 1)))[2, 0] == 3.0, "expected 3"

    def predicts_only_with_keras(self):
        assert self is not None

    def is_skipped(self):
        self.skipTest("not here")


@pytest.mark.parametrize(
    ("method", "ending"),
    [
        ("expects_another_result", "AssertionError: expected 3"),
        ("predicts_only_with_keras", NEVER_PREDICTS),
        ("is_skipped", "skipped: not here"),
    ],
)
def test_what_does_not_pass_fails(method, ending, strategies):
    with pytest.raises(AssertionError, match=ending):
        run_on(PeerTest(Example, method), [strategies[1], strategies[2]])


def test_a_listed_test_that_passes_fails(strategies, monkeypatch):
    test = PeerTest(Example, "predicts")
    run_on(test, [strategies[1], strategies[2]])
    monkeypatch.setitem(DIFFERENCES, test.name, next(iter(DIFFERENCES.values())))
    with pytest.raises(AssertionError, match="passes, not Difference"):
        run_on(test, [strategies[1], strategies[2]])
