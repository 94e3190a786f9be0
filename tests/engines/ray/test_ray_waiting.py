"""Which threads wait while a process is replaced, without Ray."""

import threading

import pytest

from keras_mgpu_strategy.engines.ray.actors import Slot
from tests.helpers import ended, is_waiting


def begun(target):
    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    return thread


def enter(turn):
    def run():
        with turn():
            pass

    return run


def test_many_share_a_process_and_one_waits_to_be_alone():
    slot = Slot("actor")
    with slot.shared() as first, slot.shared() as second:
        assert first == second == "actor"
        alone = begun(enter(slot.alone))
        assert is_waiting(alone)
        late = begun(enter(slot.shared))
        assert is_waiting(late)  # otherwise the one to be alone would wait for ever
    assert ended(alone)
    assert ended(late)


def test_two_that_are_to_be_alone_take_turns():
    slot = Slot("actor")
    with slot.alone():
        others = [begun(enter(slot.alone)), begun(enter(slot.shared))]
        assert all(map(is_waiting, others))
    assert all(map(ended, others))


def test_an_error_gives_the_process_back():
    slot = Slot("actor")
    for turn in (slot.shared, slot.alone):
        with pytest.raises(KeyError), turn():
            raise KeyError
    assert ended(begun(enter(slot.alone)))
