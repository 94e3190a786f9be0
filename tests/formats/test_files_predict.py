"""Integers of tables reach the model as they are, without becoming floats."""

import keras
import numpy as np
import pandas as pd
import pytest

from keras_mgpu_strategy import Predictor
from keras_mgpu_strategy.files import Csv, Parquet


@pytest.mark.parametrize("dtype", ["int64", "uint64", "int32", "bool"])
def test_integers_reach_the_model_as_they_are(dtype, strategies, tmp_path):
    inputs = keras.Input([], dtype=dtype, name="id")
    identity = keras.Model(inputs, keras.layers.Identity()(inputs))
    with strategies[2].scope():
        predictor = Predictor(identity)
    most = 1 if dtype == "bool" else np.iinfo(dtype).max
    rows = np.array([0, 1, most, most - 1], dtype)
    table = pd.DataFrame({"id": rows, "other": 0.5})
    table.to_csv(tmp_path / "x.csv", index=False)
    table.to_parquet(tmp_path / "x.parquet")
    for name in ("x.csv", "x.parquet"):
        found = predictor.predict(tmp_path / name, batch_size=2, verbose=0)
        np.testing.assert_array_equal(found, rows)
        assert found.dtype == rows.dtype
        with pytest.raises(
            ValueError, match=f"{name}, column 'other', row 0 holds 0.5"
        ):
            wrong = (Csv if name == "x.csv" else Parquet)(tmp_path / name, "other")
            predictor.predict(wrong, batch_size=2, verbose=0)
