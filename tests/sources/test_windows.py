"""Windows of rows of unequal length: which rows run in which batch, padded how."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_mgpu_strategy.sources import ragged_pieces
from keras_mgpu_strategy.sources.lengths import chosen_lengths
from keras_mgpu_strategy.sources.pad import Pad
from keras_mgpu_strategy.sources.ragged_pieces import FirstWindow
from keras_mgpu_strategy.sources.token_batches import TokenBatches, token_batches
from keras_mgpu_strategy.sources.windows import Windows
from keras_mgpu_strategy.types import InputBatch
from keras_mgpu_strategy.types.ragged import Ragged

LENGTHS = st.lists(st.integers(0, 9), max_size=40)
VALUE = np.int64(-1)


class RaggedRows:
    """Row r holds r * 100, r * 100 + 1, ...; a second input holds r."""

    def __init__(self, lengths, most=None, *, knows_rows=True):
        self._lengths = np.array(lengths, int)
        offsets = np.concatenate([[0], np.cumsum(self._lengths)]).astype(np.int64)
        rows = np.repeat(np.arange(len(lengths)), self._lengths)
        values = rows * 100 + np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
        self._inputs = {"n": np.arange(len(lengths)), "x": Ragged(values, offsets)}
        self._most = most
        self.num_rows = len(lengths) if knows_rows else None
        self.spec = {
            "n": tf.TensorSpec([None], tf.int64),
            "x": tf.TensorSpec([None, None], tf.int64),
        }

    def batches(self, batch_size, start=0):
        size = min(batch_size, self._most or batch_size)
        for first in range(start, len(self._lengths), size):
            inputs = {key: x[first : first + size] for key, x in self._inputs.items()}
            yield InputBatch(first, len(inputs["n"]), inputs)


def windows_of(source, pad, lengths, size=2, tokens=None, row_bytes=(8, 8)):
    rows = [(n, tokens // n if tokens else size) for n in lengths]
    batches = TokenBatches(1, tuple(rows), tokens)
    values = (None, VALUE)
    return Windows(source, pad, values, batches, row_bytes, pad.window)


def expected_row(row, length, padded, side):
    own = [row * 100 + token for token in range(length)]
    cut = own[:padded] if side == "right" else own[max(length - padded, 0) :]
    padding = [-1] * (padded - len(cut))
    return cut + padding if side == "right" else padding + cut


@settings(deadline=None, max_examples=200)
@given(
    LENGTHS,
    st.data(),
    st.integers(1, 12),
    st.sampled_from(["right", "left"]),
    st.booleans(),
)
def test_every_row_is_run_once_with_its_own_tokens(lengths, data, window, side, cuts):
    """Whatever the lengths, the window, the byte limit and the start."""
    table = sorted(data.draw(st.sets(st.integers(1, 10), min_size=1, max_size=4)))
    if not cuts:
        table = sorted({*table, max([*lengths, 1])})
    pad = Pad(lengths=table, window=window, side=side, truncate=cuts)
    tokens = data.draw(st.sampled_from([None, 20]))
    source = RaggedRows(lengths, data.draw(st.sampled_from([None, 1, 3])))
    most_bytes = data.draw(st.sampled_from([1 << 20, 200, 60]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ragged_pieces, "MOST_BYTES", most_bytes)
        whole = windows_of(source, pad, table, tokens=tokens)
        blocks = list(whole.batches(4))
        starts = [window.start for window in whole.begun]
        start = data.draw(st.sampled_from([0, *starts]))
        later = windows_of(source, pad, table, tokens=tokens)
        again = list(later.batches(4, start))
    positions = [batch.start for batch in blocks]
    stops = [batch.start + batch.num_rows for batch in blocks]
    assert positions == [0, *stops][: len(positions)]
    assert (stops or [0])[-1] == len(lengths)
    assert {*range(0, len(lengths), window)} <= {*starts}
    order = np.concatenate([[0], *(w.start + w.order for w in whole.begun)])[1:]
    assert sorted(order) == list(range(len(lengths)))
    for batch in blocks:
        rows = order[batch.start : batch.start + batch.num_rows]
        np.testing.assert_array_equal(batch.inputs["n"], rows)
        padded = batch.inputs["x"].shape[1]
        assert padded in table
        for row, found in zip(rows, batch.inputs["x"], strict=True):
            fits = cuts and padded == table[-1]
            assert lengths[row] <= padded or fits
            assert [*found] == expected_row(row, lengths[row], padded, side)
    kept = [batch for batch in blocks if batch.start >= start]
    assert [b.start for b in again] == [b.start for b in kept]
    for one, other in zip(again, kept, strict=True):
        tf.nest.map_structure(np.testing.assert_array_equal, one.inputs, other.inputs)


def test_windows_take_at_most_a_number_of_bytes(monkeypatch):
    monkeypatch.setattr(ragged_pieces, "MOST_BYTES", 100)
    lengths = [1, 2, 30, 40, 1, 1, 1, 1, 1, 1, 1]
    whole = windows_of(RaggedRows(lengths), Pad(window=8), (40,), row_bytes=(2, 4))
    list(whole.batches(8))
    sizes = [w.stop - w.start for w in whole.begun]
    assert sizes == [2, 1, 1, 4, 3]  # two rows each take more alone


def test_the_next_window_is_read_while_one_is_run():
    class Failing(RaggedRows):
        read = 0

        def batches(self, batch_size, start=0):
            for batch in super().batches(batch_size, start):
                if batch.start >= 24:
                    raise OSError("no row 24")
                self.read = batch.start + batch.num_rows
                yield batch

    source = Failing([1, 2] * 20, most=1)
    whole = windows_of(source, Pad(window=8), (1, 2)).batches(2)
    read = []
    with pytest.raises(OSError, match="no row 24"):
        for batch in whole:
            read.append((batch.start + batch.num_rows, source.read))
    # All windows before the error are run, and reading stays ahead of them.
    assert read[:3] == [(2, 8), (4, 10), (8, 12)]
    assert read[-1] == (24, 24)


def test_what_does_not_fill_a_batch_moves_up():
    # Batches of 8, 4 and 2 rows: 3 of length 2 fit into the batch of length 4.
    lengths = [2, 4, 2, 8, 2]
    whole = windows_of(RaggedRows(lengths), Pad(), (2, 4, 8), size=2, tokens=16)
    padded = [(b.inputs["x"].shape, [*b.inputs["n"]]) for b in whole.batches(2)]
    assert padded == [((1, 8), [3]), ((4, 4), [1, 0, 2, 4])]
    (window,) = whole.begun
    assert [*window.groups.items()] == [(8, 1), (4, 4)]
    whole = windows_of(RaggedRows([2, 1, 2, 1]), Pad(), (1, 2), size=8)
    assert [[*b.inputs["n"]] for b in whole.batches(8)] == [[0, 1, 2, 3]]
    assert whole.begun[0].is_in_order


def test_a_longer_row_later_is_an_error_or_gets_a_further_length():
    lengths = [3] * 4 + [9]
    source = RaggedRows(lengths)
    whole = windows_of(source, Pad(window=4), (3,))
    shapes = [batch.inputs["x"].shape for batch in whole.batches(4)]
    assert shapes == [(4, 3), (1, 16)]
    with pytest.raises(ValueError, match=r"Row 4 has 9 tokens.*truncate=True"):
        list(windows_of(source, Pad(lengths=[3]), (3,)).batches(4))
    with pytest.raises(ValueError, match="Row 4 has 9 tokens, .* more than max_tokens"):
        list(windows_of(source, Pad(max_tokens=8), (3,), 1, 8).batches(4))


@pytest.mark.parametrize("knows_rows", [True, False])
def test_the_first_window_is_read_ahead_and_given_back(knows_rows):
    lengths = [*range(1, 301)]
    source = FirstWindow(RaggedRows(lengths, knows_rows=knows_rows), 290, (8, 8))
    assert [*source.lengths] == lengths[:290]
    assert source.rows is not None
    assert source.rows.num_rows == 256
    for start in (0, 100, 0):  # later calls read anew
        batches = list(source.batches(64, start))
        numbers = itertools.chain.from_iterable(b.inputs["n"] for b in batches)
        assert [*numbers] == [*range(start, 300)]
        assert batches[0].start == start
    assert not source.is_all
    assert [*FirstWindow(RaggedRows([]), 5, (8, 8)).lengths] == []
    few = [FirstWindow(RaggedRows([1] * 5), window, (8, 8)) for window in (4, 5, 6)]
    assert [source.is_all for source in few] == [False, True, True]


def test_batches_are_filled_by_the_rows_of_a_window():
    # 100 rows of 10 tokens: 3 batches of 34, although 4 of 25 would be allowed too.
    batches = token_batches(0, ((10, 100), (20, 0), (40, 7)), 400, is_all=True)
    assert batches.rows == ((10, 34), (20, 20), (40, 7))
    assert [batches.micro_batch(n, 7) for n in (10, 20, 40, 64)] == [34, 20, 7, 6]
    assert [batches.micro_batch(n, 3) for n in (10, 20, 40)] == [14, 8, 3]
    more = token_batches(0, ((10, 100), (40, 300)), 4000, is_all=False)
    assert more.rows == ((10, 118), (40, 80))


def cost(lengths, chosen):
    table = np.array(chosen)
    return table[np.searchsorted(table, lengths)].sum()


@settings(deadline=None, max_examples=100)
@given(st.lists(st.integers(0, 12), min_size=1, max_size=60))
def test_few_lengths_are_nearly_the_best_possible(lengths):
    rows = np.maximum(lengths, 1)
    found = sorted({*rows})
    chosen = chosen_lengths(np.array(lengths))
    assert chosen[-1] == found[-1]
    assert len(chosen) <= 6
    assert {*chosen} <= {*found}
    best = min(
        cost(rows, (*others, found[-1]))
        for others in itertools.combinations(found[:-1], min(5, len(found) - 1))
    )
    assert cost(rows, chosen) <= 1.02 * best


def test_lengths_of_many_distributions():
    random = np.random.default_rng(5)
    assert chosen_lengths(np.full(1000, 7)) == (7,)
    assert chosen_lengths(np.zeros(3, int)) == (1,)
    assert chosen_lengths(np.zeros(0, int)) == (1,)
    rows = random.integers(1, 100_000, 16384)  # far more than are examined
    chosen = chosen_lengths(rows)
    assert len(chosen) == 6
    even = np.ceil(rows.max() * np.arange(1, 7) / 6)
    assert cost(rows, chosen) < 1.01 * cost(rows, even)
