"""Any model, any rows, any way to pass them: the results are those of one device.

`python -m pytest -m "" tests/properties` runs 200 calls of some models, the same each
time; with `--hypothesis-profile=nightly` 2,000 of as many models, new ones each time.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.properties import spec
from tests.properties.cases import cases
from tests.properties.checking import assert_same
from tests.properties.feeding import ARRAYS, STREAMS
from tests.properties.graphs import deployments, pool
from tests.properties.spec import Case, Deployment, Graph, Input, Node

NIGHTLY = settings.get_current_profile_name().startswith("nightly")
PROFILE = settings.get_profile("nightly" if NIGHTLY else "ci")
POOL = deployments() if NIGHTLY else st.sampled_from(pool(40))


@PROFILE
@given(case=cases(tuple(ARRAYS), POOL))
def test_arrays_and_files_give_what_one_device_gives(case, bench):
    bench.check(case)


@PROFILE
@given(case=cases(tuple(STREAMS), POOL))
def test_streams_give_what_one_device_gives(case, bench):
    bench.check(case)


@settings(max_examples=50, deadline=None)
@given(case=cases((*ARRAYS, *STREAMS), deployments()))
def test_a_case_prints_as_what_makes_it_again(case):
    names = {name: getattr(spec, name) for name in vars(spec) if name[0].isupper()}
    assert eval(repr(case), names) == case


def test_profiles_run_as_many_examples_as_they_promise():
    assert 2 * settings.get_profile("ci").max_examples == 200
    assert 2 * settings.get_profile("nightly").max_examples == 2000


MIXING = Case(
    Deployment(Graph((Input("x", (2,)),), (Node("batch_mean", (0,)),), (1,))),
    batches=(30,),
)


def test_rows_that_are_mixed_would_be_noticed(bench):
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        bench.check(MIXING)


ROWS = np.arange(12, dtype=np.float32).reshape(6, 2)


@pytest.mark.parametrize(
    "wrong",
    [
        [ROWS[:-1]],
        [ROWS[:3], ROWS[4:]],
        [ROWS[::-1]],
        [ROWS.astype(np.float64)],
        [ROWS.reshape(6, 2, 1)],
        [ROWS + np.float32(1e-3)],
        [[ROWS]],
    ],
    ids=["lost", "skipped", "reversed", "dtype", "shape", "values", "structure"],
)
def test_wrong_results_would_be_noticed(wrong):
    assert_same([ROWS[:4], ROWS[4:]], [ROWS], knows_shape=True)
    with pytest.raises((AssertionError, ValueError, TypeError)):
        assert_same(wrong, [ROWS], knows_shape=True)
