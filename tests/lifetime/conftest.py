"""A watchdog over tests that could wait for ever, and Predictors on every engine."""

import faulthandler
import functools
import sys

import pytest

import keras_mgpu_strategy as mgpu
from tests import helpers

SECONDS = 180


@pytest.fixture(autouse=True)
def watchdog():
    """Ends the process of tests that hang, and shows where its threads are."""
    faulthandler.dump_traceback_later(SECONDS, exit=True, file=sys.__stderr__)
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture(params=["threads", "mirrored"])
def engine(request):
    return request.param


@pytest.fixture(scope="session")
def predictor_of(strategies):
    """Makes the Predictor of an engine over some replicas, once."""

    @functools.cache
    def make(engine, num_replicas):
        with strategies[num_replicas].scope():
            model = helpers.doubling_model(num_columns=None)
            return mgpu.Predictor(model, engine=engine)

    return make


@pytest.fixture
def predictor(predictor_of, engine):
    """Used by many tests, which shows that each leaves it usable."""
    return predictor_of(engine, 2)
