from concurrent import futures

import pytest
import tensorflow as tf

from keras_mgpu_strategy.devices.scope import make_strategy, scope
from tests import children, splitting


def num_replicas_on(strategy):
    return strategy.num_replicas_in_sync, list(strategy.extended.worker_devices)


def long_names(*names):
    return [f"/job:localhost/replica:0/task:0/device:{name}" for name in names]


@pytest.mark.parametrize(
    ("devices", "expected"),
    [
        (None, ["CPU:0"]),
        ("cpu:0", ["CPU:0"]),
        ("cpu", ["CPU:0", "CPU:1", "CPU:2", "CPU:3"]),
        ("cpu:3,cpu:1", ["CPU:3", "CPU:1"]),
        (["/cpu:2", "CPU:0", "cpu:1"], ["CPU:2", "CPU:0", "CPU:1"]),
    ],
)
def test_strategy_has_a_replica_on_each_device_in_order(devices, expected):
    strategy = make_strategy(devices)
    assert type(strategy) is tf.distribute.MirroredStrategy
    assert num_replicas_on(strategy) == (len(expected), long_names(*expected))


def test_scope_is_entered_and_left():
    with scope("cpu:0,cpu:1") as strategy:
        assert tf.distribute.get_strategy() is strategy
        variable = tf.Variable(1.0)
    assert not tf.distribute.has_strategy()
    assert len(strategy.experimental_local_results(variable)) == 2


def test_scope_is_left_after_an_error():
    with pytest.raises(KeyError), scope("cpu:0"):
        raise KeyError
    assert not tf.distribute.has_strategy()


def test_one_scope_is_entered_by_each_thread_on_its_own():
    shared = scope("cpu:0")

    def enter():
        with shared as strategy:
            assert tf.distribute.get_strategy() is strategy
        return tf.distribute.has_strategy()

    with shared as strategy, futures.ThreadPoolExecutor(1) as pool:
        assert not pool.submit(enter).result()
        assert tf.distribute.get_strategy() is strategy
    assert not tf.distribute.has_strategy()


def test_what_runs_after_the_call_cannot_be_decorated():
    async def later():
        pass

    def steps():
        yield

    for function in (later, steps):
        with pytest.raises(TypeError, match=rf"{function.__name__}, an async .* with "):
            scope("cpu:0")(function)


def test_scope_inside_a_scope_is_refused(strategies):
    with (
        strategies[2].scope(),
        pytest.raises(RuntimeError, match="inside the scope of another strategy"),
        scope("cpu:0"),
    ):
        pass


@pytest.mark.parametrize("devices", ["gpu:0", 0, "gpu", "cpu:0,cpu:7"])
def test_a_missing_device_is_an_error_that_lists_devices(devices):
    message = "There is no device .* exist: CPU:0, CPU:1, CPU:2, CPU:3."
    with pytest.raises(ValueError, match=message):
        make_strategy(devices)


@pytest.mark.parametrize(
    ("value", "error"),
    [(0, ValueError), (-1, ValueError), (True, TypeError), (1.5, TypeError)],
)
def test_replicas_per_device_is_checked(value, error):
    with pytest.raises(error, match=r"replicas_per_device=.*integer of at least 1"):
        make_strategy("cpu:0", replicas_per_device=value)


def test_replicas_on_devices_that_are_split_already():
    strategy = make_strategy("cpu:0", replicas_per_device=4)
    expected = long_names("CPU:0", "CPU:1", "CPU:2", "CPU:3")
    assert num_replicas_on(strategy) == (4, expected)


def test_replicas_after_tensorflow_has_started_are_refused():
    with pytest.raises(RuntimeError, match="replicas_per_device=2 needs CPU:0 split"):
        make_strategy(replicas_per_device=2)


@pytest.mark.parametrize(
    "split",
    [
        splitting.scope_splits_a_device_once,
        splitting.scope_splits_physical_devices,
        splitting.scope_after_the_first_tensor,
    ],
    ids=lambda split: split.__name__,
)
def test_a_split_before_tensorflow_has_started(split):
    children.run(split)
