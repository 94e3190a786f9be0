"""However a run ends, no thread of an engine is left behind."""

import gc
import os
import signal
import time

import pytest

from keras_mgpu_strategy.inputs import as_source
from tests import helpers
from tests.helpers import BATCH


class TestNoThreadIsLeft:
    """By a run that goes on for ever, unless somebody ends it."""

    @pytest.fixture
    def endless(self):
        """An endless source that notes whether its generator was closed."""
        self.is_closed = False

        def batches():
            try:
                yield from helpers.numbered_batches(50)
            finally:
                self.is_closed = True

        return as_source(batches())

    def test_by_an_iterator_that_is_never_begun(self, engine, endless):
        with helpers.no_thread_left():
            engine.run(endless, BATCH)

    def test_by_an_iterator_that_is_closed(self, engine, endless):
        with helpers.no_thread_left():
            batches = engine.run(endless, BATCH)
            next(batches)
            batches.close()
        assert self.is_closed
        assert list(batches) == []

    def test_by_an_iterator_that_is_abandoned(self, engine, endless):
        with helpers.no_thread_left():
            batches = engine.run(endless, BATCH)
            next(batches)
            del batches
        assert self.is_closed

    @pytest.mark.parametrize("error", [LookupError, KeyboardInterrupt])
    def test_by_a_consumer_that_fails(self, engine, endless, error):
        def consume():
            for _ in engine.run(endless, BATCH):
                raise error

        with helpers.no_thread_left(), pytest.raises(error):
            consume()
        gc.collect()
        assert self.is_closed

    def test_by_an_interrupt_while_waiting_for_rows(self, engine):
        def batches():
            for number, rows in enumerate(helpers.numbered_batches(2048)):
                yield rows
                if number == 3:
                    # As Ctrl-C does; the consumer, in the main thread, waits for rows.
                    os.kill(os.getpid(), signal.SIGINT)
                    time.sleep(0.3)

        def consume():
            for _ in engine.run(as_source(batches()), BATCH):
                pass

        with helpers.no_thread_left(), pytest.raises(KeyboardInterrupt):
            consume()

    def test_by_a_run_that_ends(self, engine):
        with helpers.no_thread_left():
            list(engine.run(as_source(helpers.numbered_rows(500)), BATCH))
