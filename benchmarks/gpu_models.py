"""Models, rows and Predictors for measurements on one GPU."""

import os

import keras
import numpy as np

import keras_mgpu_strategy as mgpu

IS_SIMULATED = "TF_PLUGGABLE_DEVICE_LIBRARY_PATH" in os.environ


def chain(shape, *parts):
    """A model of layers, one after another."""
    inputs = outputs = keras.Input(shape)
    for part in parts:
        outputs = part(outputs)
    return keras.Model(inputs, outputs)


def rows(num_rows, *shape):
    """Random rows, the same each time."""
    return np.random.default_rng(0).random((num_rows, *shape), np.float32)


def predictor_of(model, engine, **options):
    """A Predictor on the first GPU."""
    with mgpu.scope("gpu:0"):
        return mgpu.Predictor(model, engine=engine, **options)
