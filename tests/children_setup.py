"""Imported by the process that children are forked from; starts no device."""

import tensorflow  # noqa: F401

import keras_mgpu_strategy.predictor  # noqa: F401
