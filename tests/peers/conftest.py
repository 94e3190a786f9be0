"""Makes the mark known that Keras' own tests carry."""


def pytest_configure(config):
    config.addinivalue_line(
        "markers", "requires_trainable_backend: a test of Keras that trains"
    )
