"""A watchdog for tests that could hang, and Predictors on every engine."""

import faulthandler
import functools
import os

import pytest

import keras_mgpu_strategy as mgpu
from tests import helpers

SECONDS = 600


@pytest.fixture(scope="session")
def terminal(request):
    """Standard error without pytest's capture, for what is written before an exit."""
    capturing = request.config.pluginmanager.getplugin("capturemanager")
    with capturing.global_and_fixture_disabled():
        stream = os.fdopen(os.dup(2), "w")
    with stream:
        yield stream


@pytest.fixture(autouse=True)
def watchdog(terminal):
    """Ends the process if a test hangs, and shows where its threads are."""
    faulthandler.dump_traceback_later(SECONDS, exit=True, file=terminal)
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture(params=["threads", "mirrored"])
def engine(request):
    return request.param


@pytest.fixture(scope="session")
def predictor_of(strategies):
    """Makes one Predictor for each engine and number of replicas."""

    @functools.cache
    def make(engine, num_replicas):
        with strategies[num_replicas].scope():
            model = helpers.doubling_model(num_columns=None)
            return mgpu.Predictor(model, engine=engine)

    return make


@pytest.fixture
def predictor(predictor_of, engine):
    """Shared by many tests, which shows that each leaves it usable."""
    return predictor_of(engine, 2)
