"""Joins a Ray cluster, or starts Ray on this machine.

Guarantee: Ray that is started here listens on the loopback interface only, sends no
usage statistics, shows no dashboard and writes nothing into the home folder.
"""

from typing import Any

from keras_mgpu_strategy import environment


def connect(address: str | None) -> Any:
    """Returns the package `ray`, connected.

    Args:
        address: A running cluster; None for the one that this process has joined, or
            else a new one on this machine.

    Raises:
        ImportError: Ray is not installed.
        ConnectionError: There is no cluster at the address.
        ValueError: This process has joined another cluster.
    """
    environment.prepare_ray()
    try:
        import ray
    except ImportError as error:
        raise ImportError(
            'engine="ray" needs the package ray, which is not installed. Run '
            '`pip install "keras_mgpu_strategy[ray]"`.'
        ) from error
    if ray.is_initialized():
        _check_same(ray, address)
        return ray
    quiet: dict[str, Any] = {"log_to_driver": False, "configure_logging": False}
    if address is not None:
        ray.init(address=address, **quiet)
        return ray
    # Private to Ray, but its only way to stay on the loopback. Tried with Ray 2.60.
    loopback: dict[str, Any] = {"_node_ip_address": "127.0.0.1"}
    ray.init(address="local", include_dashboard=False, **quiet, **loopback)
    return ray


def _check_same(ray: Any, address: str | None) -> None:
    joined = ray.get_runtime_context().gcs_address
    if address not in (None, "auto", joined):
        raise ValueError(
            f"ray_address={address!r}, but this process has joined {joined}. Call "
            "ray.shutdown() first, or leave ray_address out."
        )
