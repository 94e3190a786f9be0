"""Files of results whose rows differ in length, and their metrics."""

import keras
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import keras_mgpu_strategy as mgpu
from tests.runs.test_padded_results import PAD, ROWS, alone, model

__all__ = ["alone", "model"]


@pytest.fixture(scope="module")
def predictor(model):
    with mgpu.scope(["CPU:0", "CPU:1"]):
        return mgpu.Predictor(model)


def written(predictor, path, **options):
    options = {"method": "predict", "verbose": 0, "pad": PAD} | options
    return predictor.predict_to(path, **options)


def test_columns_beside_the_rows_are_kept(predictor, tmp_path):
    columns = {"x": [row.tolist() for row in ROWS], "key": [*range(7, 97)]}
    pq.write_table(pa.table(columns), tmp_path / "in.parquet", row_group_size=20)
    in_memory = {"x": ROWS, "key": np.array(columns["key"])}
    for number, x in enumerate((in_memory, tmp_path / "in.parquet")):
        path = tmp_path / f"{number}.parquet"
        written(predictor, path, x=x, keep="key")
        assert pq.read_table(path)["key"].to_pylist() == columns["key"]


def test_the_lists_are_rows_of_the_next_model(predictor, alone, tmp_path):
    path = tmp_path / "out.parquet"
    written(predictor, path, x=ROWS)
    inputs = keras.Input((None, 3))
    masked = keras.layers.Masking(-1.0)(inputs)
    after = keras.Model(inputs, keras.layers.GlobalAveragePooling1D()(masked))
    rows = mgpu.files.Parquet(path, columns="tags")
    pad = mgpu.Pad(value=-1)
    found = mgpu.Predictor(after).predict(rows, pad=pad)
    expected = [row["tags"].mean(0) for row in alone]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("suffix", [".npy", ".csv", ".zarr"])
def test_other_formats_are_refused_before_any_row_is_run(predictor, suffix, tmp_path):
    message = f"A {suffix} output cannot hold outputs whose rows differ in length"
    before = predictor.report
    with pytest.raises(ValueError, match=message):
        written(predictor, tmp_path / f"out{suffix}", x=ROWS)
    assert not any(tmp_path.iterdir()) and predictor.report is before


def test_rows_without_tokens_in_their_results_fit_any_format(model, alone, tmp_path):
    predictor = mgpu.Predictor(model, outputs="label")
    written(predictor, tmp_path / "out.npy", x=ROWS)
    label = np.array([row["label"] for row in alone])
    found = np.load(tmp_path / "out.npy")
    np.testing.assert_allclose(found, label, rtol=1e-5, atol=1e-6)


def test_metrics_are_of_rows_not_of_tokens(model, alone, tmp_path):
    label = np.array([row["label"][0] > 0 for row in alone], np.int64)[:, None]
    asked = {"x": ROWS, "labels": label, "metrics": ["accuracy"]}
    options = {"method": "predict_classes", "from_logits": True} | asked
    predictor = mgpu.Predictor(model, outputs="label")
    report = written(predictor, tmp_path / "one.parquet", **options)
    assert report.metrics == {"accuracy": 1.0}
    with pytest.raises(ValueError, match="a value for each token cannot be computed"):
        both = {"metrics": {"tags": "accuracy"}, "labels": {"tags": label}}
        written(mgpu.Predictor(model), tmp_path / "two.parquet", **options | both)


def test_no_rows_have_the_form_of_some(predictor, tmp_path):
    found = predictor.predict([], pad=PAD)
    assert found["tags"].shape.as_list() == [0, None, 3]
    assert found["label"].shape == (0, 1)
    best = predictor.predict_classes([], from_logits=True, pad=PAD)
    assert best["tags"].shape.as_list() == [0, None]
    written(predictor, tmp_path / "out.parquet", x=[])
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.column_names == ["row", "label", "tags"] and not len(table)


def test_layers_that_must_know_the_length(alone):
    """Keras 3's TimeDistributed mistakes an unknown length for the number of rows."""
    layers = keras.layers
    inputs = keras.Input((None,), dtype="int32")
    x = layers.Embedding(50, 8, mask_zero=True)(inputs)
    x = layers.TimeDistributed(layers.Dense(3))(
        layers.LSTM(4, return_sequences=True)(x)
    )
    model = keras.Model(inputs, x)
    for engine in ("threads", "mirrored"):
        with mgpu.scope(["CPU:0", "CPU:1"]):
            predictor = mgpu.Predictor(model, engine=engine)
        found = predictor.predict(ROWS, pad=PAD)
        for index, row in enumerate(ROWS):
            one = model(row[None])[0]
            np.testing.assert_allclose(found[index], one, rtol=1e-5, atol=1e-6)
