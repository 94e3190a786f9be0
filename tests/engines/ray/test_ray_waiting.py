"""Who waits for whom while a process is replaced: threads, without Ray."""

import threading
import time

import pytest

from keras_mgpu_strategy.engines.ray.backpressure import Window
from keras_mgpu_strategy.engines.ray.slot import Place


def begun(target):
    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    return thread


def is_waiting(thread):
    thread.join(0.1)
    return thread.is_alive()


def ended(thread):
    thread.join(30)
    return not thread.is_alive()


def enter(turn):
    def run():
        with turn():
            pass

    return run


def test_many_share_a_process_and_one_waits_to_be_alone():
    place = Place("actor")
    with place.shared() as first, place.shared() as second:
        assert first == second == "actor"
        alone = begun(enter(place.alone))
        assert is_waiting(alone)
        late = begun(enter(place.shared))
        assert is_waiting(late)  # or the one that is to be alone would wait for ever
    assert ended(alone)
    assert ended(late)


def test_two_that_are_to_be_alone_take_turns():
    place = Place("actor")
    with place.alone():
        others = [begun(enter(place.alone)), begun(enter(place.shared))]
        assert all(map(is_waiting, others))
    assert all(map(ended, others))


def test_an_error_gives_the_process_back():
    place = Place("actor")
    for turn in (place.shared, place.alone):
        with pytest.raises(KeyError), turn():
            raise KeyError
    assert ended(begun(enter(place.alone)))


def test_results_do_not_pile_up_behind_a_late_chunk():
    window = Window(most_bytes=1000)
    window.learn(10, 1000)  # 100 bytes a row
    with window.admitted(0):
        assert ended(begun(enter(lambda: window.admitted(10))))
        far = begun(enter(lambda: window.admitted(11)))
        assert is_waiting(far)
    assert ended(far)


def test_the_first_chunk_goes_on_wherever_it_begins():
    window = Window(most_bytes=0)
    window.learn(1, 100)
    assert ended(begun(enter(lambda: window.admitted(70))))
    with window.admitted(70):
        later = begun(enter(lambda: window.admitted(80)))
        assert is_waiting(later)
        with window.admitted(60):  # handed out before, begun after
            time.sleep(0.01)
        assert is_waiting(later)
    assert ended(later)


def test_a_chunk_that_fails_lets_the_others_go_on():
    window = Window(most_bytes=0)
    window.learn(1, 1)
    with pytest.raises(KeyError), window.admitted(0):
        later = begun(enter(lambda: window.admitted(1)))
        assert is_waiting(later)
        raise KeyError
    assert ended(later)
