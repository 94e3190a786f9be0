"""Signals, which are really sent, are held back."""

import itertools
import os
import signal
import subprocess
import sys
import threading

import pytest

from keras_mgpu_strategy.system.signals import held_back, stopping_signals

ALL = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1]
USUAL = ALL[:3]


@pytest.fixture(autouse=True)
def handlers():
    """Restores the handlers, even if a test fails."""
    before = {number: signal.getsignal(number) for number in ALL}
    yield before
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def received():
    """The numbers of the signals that reached the user's own handler."""
    numbers = []
    for number in ALL:
        signal.signal(number, lambda given, frame: numbers.append(given))
    return numbers


def test_a_signal_is_held_until_the_end_of_the_block(received):
    for number in ALL:
        with held_back(ALL) as held:
            assert held.signal is None
            os.kill(os.getpid(), number)
            assert held.signal == number
            assert received == []
        assert received == [number]
        received.clear()


def test_without_a_signal_nothing_happens_and_handlers_are_restored(handlers):
    with held_back(ALL) as held:
        assert all(signal.getsignal(n) != handlers[n] for n in ALL)
    assert held.signal is None
    assert {number: signal.getsignal(number) for number in ALL} == handlers


def test_a_second_signal_is_not_held_back(received):
    for first, second in itertools.product(ALL, ALL):
        with held_back(ALL) as held:
            os.kill(os.getpid(), first)
            os.kill(os.getpid(), second)
            assert received == [second]
            assert held.signal == first
        assert received == [second, first]
        received.clear()


def test_ctrl_c_is_a_keyboard_interrupt_after_the_block(handlers):
    reached = []
    with pytest.raises(KeyboardInterrupt), held_back(ALL):
        os.kill(os.getpid(), signal.SIGINT)
        reached.append("end of the block")
    assert reached == ["end of the block"]
    assert {number: signal.getsignal(number) for number in ALL} == handlers


def test_handlers_are_restored_after_an_error(handlers):
    with pytest.raises(ValueError, match="own"), held_back(ALL):
        raise ValueError("own")
    assert {number: signal.getsignal(number) for number in ALL} == handlers


def test_a_signal_and_an_error_both_arrive(received):
    with pytest.raises(ValueError, match="own"), held_back(ALL):
        os.kill(os.getpid(), signal.SIGTERM)
        raise ValueError("own")
    assert received == [signal.SIGTERM]


def test_ignored_signals_stay_ignored():
    for number in ALL:
        signal.signal(number, signal.SIG_IGN)
        with held_back(ALL) as held:
            os.kill(os.getpid(), number)
            assert held.signal is None
            assert signal.getsignal(number) is signal.SIG_IGN


def test_nothing_is_done_outside_the_main_thread(handlers):
    found = []

    def work():
        with held_back(ALL) as held:
            found.append({number: signal.getsignal(number) for number in ALL})
            found.append(held.signal)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [handlers, None]


def test_blocks_may_be_nested(received):
    with held_back(ALL) as outer:
        with held_back(ALL) as inner:
            os.kill(os.getpid(), signal.SIGINT)
            assert (outer.signal, inner.signal) == (None, signal.SIGINT)
        assert outer.signal == signal.SIGINT
        assert received == []
    assert received == [signal.SIGINT]


WAITS = """
import sys, time
from keras_mgpu_strategy.system.signals import held_back, stopping_signals
with held_back(stopping_signals("USR1")) as held:
    print("waiting", flush=True)
    while held.signal is None:
        time.sleep(0.001)
    print("wrote its rows", flush=True)
print("not reached", flush=True)
"""


@pytest.mark.parametrize("number", ALL)
def test_a_process_ends_by_the_signal_after_its_block(number):
    command = [sys.executable, "-c", WAITS]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        process.send_signal(number)
        assert process.stdout.read() == "wrote its rows\n"
        assert process.wait(timeout=30) == -number


@pytest.mark.parametrize(
    ("stop_on", "numbers"),
    [
        ((), USUAL),
        ("USR1", ALL),
        (["SIGUSR1"], ALL),
        (("usr1", "TERM", "USR1"), ALL),
        ("XCPU", [*USUAL, signal.SIGXCPU]),
    ],
)
def test_names_of_signals_that_end_a_run(stop_on, numbers):
    assert stopping_signals(stop_on) == tuple(numbers)


@pytest.mark.parametrize("stop_on", ["KILL", ["USR1", "STOP"], "SEGV", "", [10]])
def test_other_signals_are_refused(stop_on):
    with pytest.raises(ValueError, match="stop_on=.*expected one or several of INT, T"):
        stopping_signals(stop_on)


def test_numbers_of_signals_are_refused():
    with pytest.raises(TypeError, match="stop_on=10, expected the name of a signal"):
        stopping_signals(10)
