"""Four virtual CPU devices for every test, made before TensorFlow starts."""

import pytest
import tensorflow as tf

NUM_DEVICES = 4


def pytest_configure() -> None:
    # One thread per device, as a replica has one accelerator: otherwise four
    # replicas share a pool of threads and their order of work says nothing.
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0],
        [tf.config.LogicalDeviceConfiguration()] * NUM_DEVICES,
    )
    # A GPU would make the suite's results depend on the machine.
    tf.config.set_visible_devices([], "GPU")


@pytest.fixture(scope="session")
def strategies() -> dict[int, tf.distribute.MirroredStrategy]:
    """Number of replicas R -> a strategy over the first R devices."""
    return {
        num_replicas: tf.distribute.MirroredStrategy(
            [f"CPU:{index}" for index in range(num_replicas)]
        )
        for num_replicas in range(1, NUM_DEVICES + 1)
    }
