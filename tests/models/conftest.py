"""Ways to look at what each replica of a model computes and holds."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from keras_mgpu_strategy.models import ReplicatedModel


def _run(replicated: ReplicatedModel, inputs: Any) -> list[Any]:
    strategy = replicated.strategy
    inputs = tf.nest.map_structure(tf.convert_to_tensor, inputs)
    step = tf.function(lambda x: strategy.run(replicated.call, args=(x,)))
    results = step(inputs)

    def of_replica(index: int) -> Any:
        return tf.nest.map_structure(
            lambda value: strategy.experimental_local_results(value)[index].numpy(),
            results,
        )

    return [of_replica(index) for index in range(strategy.num_replicas_in_sync)]


@pytest.fixture(scope="session")
def run_replicas() -> Callable[[ReplicatedModel, Any], list[Any]]:
    """Runs a replicated model on the same rows on every replica."""
    return _run


@pytest.fixture(scope="session")
def assert_same() -> Callable[[Any, Any], None]:
    """Compares nests of results within 1e-5."""

    def check(actual: Any, expected: Any) -> None:
        tf.nest.map_structure(
            lambda a, e: np.testing.assert_allclose(a, e, rtol=1e-5, atol=1e-6),
            actual,
            expected,
        )

    return check


@pytest.fixture(scope="session")
def devices_of() -> Callable[[Any, tf.distribute.Strategy], list[str]]:
    """Returns the devices that hold a copy of a variable."""

    def devices(variable: Any, strategy: tf.distribute.Strategy) -> list[str]:
        value = variable if callable(variable.value) else variable.value
        return [copy.device for copy in strategy.experimental_local_results(value)]

    return devices


@pytest.fixture(scope="session")
def rows() -> np.ndarray:
    """Eight rows of four features."""
    return np.random.default_rng(0).random((8, 4), dtype=np.float32)


@pytest.fixture(scope="session")
def targets() -> np.ndarray:
    """Eight rows of three targets."""
    return np.random.default_rng(1).random((8, 3), dtype=np.float32)
