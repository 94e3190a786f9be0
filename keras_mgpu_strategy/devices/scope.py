"""`scope()`: a plain `MirroredStrategy`, with exactly the requested replicas."""

import contextlib
import functools
import inspect
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import tensorflow as tf

from keras_mgpu_strategy.devices.names import (
    Devices,
    list_logical,
    list_physical,
    parse_devices,
    select_devices,
    split_devices,
)
from keras_mgpu_strategy.system.fork_guard import check_not_forked
from keras_mgpu_strategy.system.integers import count
from keras_mgpu_strategy.system.messages import without_records
from keras_mgpu_strategy.system.tracebacks import short_traceback

T = TypeVar("T", bound=Callable[..., Any])
_RUN_LATER = (
    inspect.iscoroutinefunction,
    inspect.isgeneratorfunction,
    inspect.isasyncgenfunction,
)


@short_traceback
def scope(devices: Devices = None, *, replicas_per_device: int = 1) -> "_Scope":
    """Enters a strategy over the given devices.

    ```
    with mgpu.scope(["gpu:0", "gpu:1"]) as strategy:
        model = mgpu.load("model.keras")
    ```

    Args:
        devices: `"gpu:0"` or `"cpu:0"`, several of them in a list or a
            comma-separated string, a GPU index or a list of these, `"gpu"` or `"cpu"`
            for all of a kind. None takes every visible GPU, or the CPU if there is
            no GPU.
        replicas_per_device: Replicas to place on each device, which is split into that
            many logical devices; `devices` then names physical devices. Works only
            before TensorFlow has started, unless the devices are already split that
            way. Each part of a GPU gets an equal share of the memory.

    Yields:
        The strategy; the replicas of the first device come first.

    Raises:
        TypeError: An argument has a wrong type.
        ValueError: A device does not exist, is named twice, or cannot be parsed.
        RuntimeError: TensorFlow has started, and the devices are not split as asked;
            another strategy's scope has been entered; or this process was forked after
            TensorFlow had started.
    """
    return _Scope(devices, replicas_per_device)


class _Scope(threading.local, contextlib.AbstractContextManager):
    """What `scope()` returns: makes its strategy when it is entered, in each thread."""

    def __init__(self, devices: Devices, replicas_per_device: int) -> None:
        self._asked = devices, replicas_per_device
        self._entered = contextlib.ExitStack()

    @short_traceback
    def __enter__(self) -> tf.distribute.MirroredStrategy:
        if tf.distribute.has_strategy():
            raise RuntimeError(
                "scope() was called inside the scope of another strategy "
                f"({type(tf.distribute.get_strategy()).__name__}). Leave that scope "
                "first, or use that strategy alone."
            )
        devices, num_parts = self._asked
        strategy = make_strategy(devices, replicas_per_device=num_parts)
        self._entered.enter_context(strategy.scope())
        return strategy

    def __exit__(self, *error: Any) -> None:
        self._entered.__exit__(*error)

    def __call__(self, function: T) -> T:
        """Decorates a function, each call of which enters a scope of its own."""
        if any(kind(function) for kind in _RUN_LATER):
            raise TypeError(
                f"scope() received {function.__qualname__}, an async function or a "
                "generator, whose body runs after the call has left the scope. Enter "
                "it in the body: with mgpu.scope(...):"
            )

        @short_traceback
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            with _Scope(*self._asked):
                return function(*args, **kwargs)

        return call  # type: ignore[return-value]


def make_strategy(
    devices: Devices = None, *, replicas_per_device: int = 1
) -> tf.distribute.MirroredStrategy:
    """Creates the strategy of `scope()`, with its errors, without entering it."""
    check_not_forked()
    num_parts = count("replicas_per_device", replicas_per_device)
    requests = parse_devices(devices)
    if num_parts == 1:
        names = select_devices(requests, list_logical())
    else:
        names = split_devices(select_devices(requests, list_physical()), num_parts)
    # The default reduction is right for every layout: TensorFlow uses NCCL only
    # if no GPU is split, and prediction reduces nothing.
    with without_records("tensorflow", "Using MirroredStrategy with devices"):
        return tf.distribute.MirroredStrategy(list(names))


def active_strategy() -> tf.distribute.Strategy | None:
    """The strategy whose scope has been entered, or None outside any scope."""
    return tf.distribute.get_strategy() if tf.distribute.has_strategy() else None
