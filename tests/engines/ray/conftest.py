"""One Ray on this machine for all tests of this folder, started as users start it."""

import os

import pytest

from keras_mgpu_strategy.engines.ray.cluster import connect

NUM_CPUS = 8


@pytest.fixture(scope="session")
def cluster():
    """The package `ray`, connected; it counts more cores than there may be."""
    os.environ["RAY_OVERRIDE_RESOURCES"] = f'{{"CPU": {NUM_CPUS}}}'
    ray = connect(None)
    yield ray
    ray.shutdown()
    del os.environ["RAY_OVERRIDE_RESOURCES"]
