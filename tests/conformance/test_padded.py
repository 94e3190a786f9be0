"""Padded rows: every model x engines x row counts x ways to take results.

The reference is the plain model on each row alone, unpadded. Each model meets each
sink; strategies and row counts take turns, so that any two of the four meet.
"""

import importlib.util
import itertools

import numpy as np
import pytest
import tensorflow as tf

import keras_mgpu_strategy as mgpu
from tests.conformance import padded_zoo as zoo

STRATEGIES = (("threads", 3), ("mirrored", 2), ("threads", 1))
ROW_COUNTS = (zoo.MOST_ROWS, 0, 1, 2, 16, 49)
"""Several windows, no row, fewer than replicas, one window, and one row in the last."""


def in_memory(predictor, x, pad, path):
    return zoo.by_row(predictor.predict(x, verbose=0, pad=pad))


def as_they_come(predictor, x, pad, path):
    found, stop = [], 0
    for batch in predictor.predict_iter(x, pad=pad):
        assert isinstance(batch, mgpu.HostBatch) and batch.start == stop
        found += zoo.by_row(batch.outputs)
        stop = batch.stop
    return found


def in_parquet(predictor, x, pad, path):
    predictor.predict_to(path, x, verbose=0, method="predict", pad=pad)
    parquet = importlib.import_module("pyarrow.parquet")
    table = parquet.read_table(path).sort_by("row").drop_columns("row").to_pydict()
    columns = {name: map(np.float32, column) for name, column in table.items()}
    if "output" in columns:
        return [*columns["output"]]
    rows = zip(*columns.values(), strict=True)
    return [dict(zip(columns, row, strict=True)) for row in rows]


SINKS = {"memory": in_memory, "iterator": as_they_come, "parquet": in_parquet}
if not importlib.util.find_spec("pyarrow"):
    del SINKS["parquet"]


def turns(name):
    """The strategies, row counts and sinks that a model meets."""
    first = [*zoo.ZOO].index(name)
    for place, sink in enumerate(SINKS):
        for number, num_rows in enumerate(ROW_COUNTS):
            yield STRATEGIES[(first + place + number) % 3], num_rows, sink


def predictor_of(name, strategies, engine, num_replicas):
    with strategies[num_replicas].scope():
        return mgpu.Predictor(zoo.model_of(name), engine=engine)


@pytest.mark.parametrize("name", zoo.ZOO)
def test_rows_are_those_of_each_row_alone(name, strategies, tmp_path):
    made = {how: predictor_of(name, strategies, *how) for how in STRATEGIES}
    pad = zoo.pad(name)
    for number, (how, num_rows, sink) in enumerate(turns(name)):
        x, path = zoo.rows(name, num_rows), tmp_path / f"{number}.parquet"
        found = SINKS[sink](made[how], x, pad, path)
        message = f"{how}, {num_rows} rows into {sink}"
        assert len(found) == num_rows, message
        report = made[how].report
        assert sum(report.lengths.values()) == num_rows
        assert 0 <= report.padding < 1
        zoo.assert_same(found, name, message)


@pytest.mark.parametrize("name", zoo.ZOO)
def test_the_same_bits_on_any_number_of_replicas(name, strategies):
    x, pad = zoo.rows(name, zoo.MOST_ROWS), zoo.pad(name)
    results = []
    for how in (*STRATEGIES, ("threads", 4), ("mirrored", 1), ("mirrored", 4)):
        outputs = predictor_of(name, strategies, *how).predict(x, verbose=0, pad=pad)
        results.append(zoo.by_row(outputs))
    for result in results[1:]:
        tf.nest.map_structure(np.testing.assert_array_equal, result, results[0])


def test_options_do_not_change_results(strategies):
    predictor = predictor_of("tagger", strategies, "threads", 2)
    x = zoo.rows("tagger", zoo.MOST_ROWS)
    for batch_size, options in (
        (None, {"lengths": "auto"}),
        (None, {"lengths": [40]}),
        (None, {"side": "left"}),
        (None, {"window": 1}),
        (None, {"window": 1000}),
        (None, {"max_tokens": zoo.LONGEST}),
        (3, {"max_tokens": None}),
        (8, {"max_tokens": None}),
    ):
        pad = zoo.pad("tagger", **options)
        found = predictor.predict(x, batch_size, verbose=0, pad=pad)
        zoo.assert_same(zoo.by_row(found), "tagger", f"{batch_size}, {options}")


def test_any_two_of_the_four_meet():
    cases = [(name, *case) for name in zoo.ZOO for case in turns(name)]
    sides = (zoo.ZOO, STRATEGIES, ROW_COUNTS, SINKS)
    for first, second in itertools.combinations(range(4), 2):
        met = {(case[first], case[second]) for case in cases}
        assert met == {*itertools.product(sides[first], sides[second])}
