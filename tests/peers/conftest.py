"""Registers the marker that Keras' own tests use."""


def pytest_configure(config):
    config.addinivalue_line(
        "markers", "requires_trainable_backend: a test of Keras that trains"
    )
