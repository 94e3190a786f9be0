"""Joins a Ray cluster, or starts Ray on this machine.

A Ray started here listens on the loopback only, sends no statistics, shows no dashboard
and writes nothing into the home folder. A silent address is an error within seconds.
"""

import re
import socket
import time
from typing import Any

from keras_mgpu_strategy.engines.ray.plan import ActorPlan
from keras_mgpu_strategy.system import environment
from keras_mgpu_strategy.system.extras import import_extra

_CONNECT_SECONDS = 10
_FREE_SECONDS = 5
_HOST_AND_PORT = re.compile(r"\[?([^\[\]/]+)\]?:(\d+)")


def connect(address: str | None) -> Any:
    """Returns the package `ray`, connected to `ray_address` of `RayOptions`."""
    environment.prepare_ray()
    ray = import_extra("ray", "ray", 'engine="ray"')
    if ray.is_initialized():
        _check_same(ray, address)
        return ray
    quiet: dict[str, Any] = {"log_to_driver": False, "configure_logging": False}
    address = address or environment.ray_address()
    if address is not None:
        _check_answers(address)
        ray.init(address=address, **quiet)
        return ray
    environment.keep_ray_private()
    # Private to Ray, but the only way to stay on the loopback. Tested with Ray 2.60.
    loopback: dict[str, Any] = {"_node_ip_address": "127.0.0.1"}
    ray.init(address="local", include_dashboard=False, **quiet, **loopback)
    return ray


def wait_for_room(ray: Any, plan: ActorPlan) -> None:
    """Waits briefly for what ended processes release, on a cluster of one machine."""
    if not ray.get_runtime_context().gcs_address.startswith("127.0.0.1:"):
        return
    deadline = time.monotonic() + _FREE_SECONDS
    while not plan.all_fit(free := ray.available_resources()):
        if time.monotonic() > deadline:
            raise ValueError(
                f"{plan.num_actors} processes of {plan.needs} each were asked for, but "
                f"of what Ray has here only {int(free.get('GPU', 0))} GPUs and "
                f"{int(free.get('CPU', 0))} CPU cores are free. Another Predictor of "
                "this process may hold the rest: delete it first."
            )
        time.sleep(0.1)


def _check_same(ray: Any, address: str | None) -> None:
    joined = ray.get_runtime_context().gcs_address
    if address not in (None, "auto", joined):
        raise ValueError(
            f"ray_address={address!r}, but this process has joined {joined}. Call "
            "ray.shutdown() first, or leave ray_address out."
        )


def _check_answers(address: str) -> None:
    """Checks an address: Ray would try for minutes, and then end this process."""
    match = _HOST_AND_PORT.fullmatch(address.removeprefix("ray://"))
    if match is None:  # "auto" and the like
        return
    try:
        place = (match[1], int(match[2]))
        socket.create_connection(place, timeout=_CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise ConnectionError(
            f"ray_address={address!r}: nothing answers there ({error}). Expected the "
            "address that `ray start --head` prints, host:port, 6379 by default."
        ) from error
