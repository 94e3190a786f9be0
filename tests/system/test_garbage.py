"""How often Python collects garbage while models are made."""

import gc

import pytest

from keras_mgpu_strategy.system.garbage import collecting_rarely


@pytest.fixture
def usual():
    """Python's default thresholds, restored."""
    before = gc.get_threshold()
    gc.set_threshold(700, 10, 10)
    yield
    gc.set_threshold(*before)


@pytest.mark.usefixtures("usual")
class TestCollectingRarely:
    def test_until_the_last_leaves(self):
        with pytest.raises(KeyError), collecting_rarely():
            with collecting_rarely():
                pass
            assert gc.get_threshold() == (100_000, 10, 10)
            raise KeyError
        assert gc.get_threshold() == (700, 10, 10)

    @pytest.mark.parametrize("first", [0, 200_000])
    def test_what_is_off_or_rarer_stays(self, first):
        gc.set_threshold(first, 10, 10)
        with collecting_rarely():
            assert gc.get_threshold() == (first, 10, 10)
        assert gc.get_threshold() == (first, 10, 10)

    def test_what_is_set_within_stays(self):
        with collecting_rarely():
            gc.set_threshold(50, 5, 5)
        assert gc.get_threshold() == (50, 5, 5)
