"""Files as input of a Predictor: the same results as from arrays."""

import keras
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from keras_mgpu_strategy import Predictor
from keras_mgpu_strategy.files import Csv, Parquet

WIDE = np.random.default_rng(0).normal(size=(101, 2)).astype(np.float32)
CODE = np.arange(101) % 5


@pytest.fixture(scope="module")
def predictor(strategies):
    """A model with the inputs `code` and `wide`, on two replicas."""
    keras.utils.set_random_seed(0)
    code = keras.Input([1], dtype="int64", name="code")
    wide = keras.Input([2], name="wide")
    embedded = keras.layers.Flatten()(keras.layers.Embedding(5, 3)(code))
    joined = keras.layers.Concatenate()([embedded, wide])
    model = keras.Model([code, wide], keras.layers.Dense(4)(joined))
    with strategies[2].scope():
        return Predictor(model)


@pytest.fixture(scope="module")
def expected(predictor):
    return predictor.predict([CODE[:, None], WIDE], batch_size=16, verbose=0)


def test_parquet(predictor, expected, tmp_path):
    wide = pa.FixedSizeListArray.from_arrays(pa.array(WIDE.reshape(-1)), 2)
    pq.write_table(pa.table({"wide": wide, "code": CODE}), tmp_path / "x.parquet", 30)
    found = predictor.predict(str(tmp_path / "x.parquet"), batch_size=16, verbose=0)
    np.testing.assert_array_equal(found, expected)
    with pytest.raises(ValueError, match="1 columns .*, which takes 2 features"):
        predictor.predict(Parquet(tmp_path / "x.parquet", ["code", "code"]))


def test_csv(predictor, expected, tmp_path):
    frame = pd.DataFrame({"code": CODE, "u": WIDE[:, 0], "v": WIDE[:, 1]})
    frame.to_csv(tmp_path / "x.csv", index=False)
    rows = Csv(tmp_path / "x.csv", {"code": "code", "wide": ["u", "v"]})
    found = predictor.predict(rows, batch_size=16, verbose=0)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("dtype", ["int64", "uint64", "int32", "bool"])
def test_whole_numbers_reach_the_model_as_they_are(dtype, strategies, tmp_path):
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


def test_a_dict_of_npy_files(predictor, expected, tmp_path):
    paths = {"code": tmp_path / "c.npy", "wide": tmp_path / "w.npy"}
    np.save(paths["code"], CODE[:, None])
    np.save(paths["wide"], WIDE)
    found = predictor.predict(paths, batch_size=16, verbose=0)
    np.testing.assert_array_equal(found, expected)
