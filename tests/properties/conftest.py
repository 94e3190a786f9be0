"""Profiles of hypothesis for the properties, and how to run a failure again."""

import random

import pytest
from hypothesis import HealthCheck, settings

from tests.properties.checking import Bench

# Building a model takes longer than hypothesis likes, and its first call even more.
_ALWAYS = {
    "deadline": None,
    "print_blob": True,
    "database": None,
    "suppress_health_check": [HealthCheck.too_slow],
}
# For each of the two properties.
settings.register_profile("ci", max_examples=100, derandomize=True, **_ALWAYS)
settings.register_profile("nightly", max_examples=1000, **_ALWAYS)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Gives nightly runs a seed that is known when they fail."""
    if _is_nightly(config) and config.option.hypothesis_seed is None:
        config.option.hypothesis_seed = str(random.SystemRandom().randrange(10**9))


def _is_nightly(config: pytest.Config) -> bool:
    return getattr(config.option, "hypothesis_profile", None) == "nightly"


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item):
    """Adds the command that draws the same examples again."""
    outcome = yield
    report = outcome.get_result()
    if report.failed and _is_nightly(item.config):
        seed = item.config.option.hypothesis_seed
        again = f"--hypothesis-profile=nightly --hypothesis-seed={seed}"
        command = f"python -m pytest -m '' '{item.nodeid}' {again}"
        report.sections.append(("the same examples again", command))


@pytest.fixture(scope="session")
def bench(strategies) -> Bench:
    """Keeps models and Predictors."""
    return Bench(strategies)
