"""What can be measured: the models, the contenders and the cases, by name.

Imports no TensorFlow, so that help and errors about flags appear at once.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class SuiteModel:
    """A model of the suite.

    Args:
        summary: What it is, for people.
        batches: Per-replica batches to measure by default.
        num_ids: Integer inputs are drawn from 0 to `num_ids - 1`.
    """

    summary: str
    batches: tuple[int, ...]
    num_ids: int = 2


MODELS = {
    "tiny": SuiteModel("dense 20-16-1", (1024,)),
    "mlp": SuiteModel("dense 784-512-512-10", (32, 1024)),
    "cnn": SuiteModel("two convolutions on 32x32x3, 10 classes", (512,)),
    "resnet50": SuiteModel("keras.applications.ResNet50, random weights", (8,)),
    "mobilenet": SuiteModel("MobileNetV2 on 96x96x3, random weights", (32,)),
    "lstm": SuiteModel("LSTM of 64 units over 32 steps of 16 features", (256,)),
    "transformer": SuiteModel(
        "embedding and one attention block over 64 tokens", (64,), num_ids=1000
    ),
    "big_outputs": SuiteModel("one convolution that returns 32x32x32", (128,)),
    "two_inputs": SuiteModel("two dense inputs of 64, dict of two outputs", (512,)),
}

CONTENDERS = {
    "keras": "Keras predict, no strategy, one device",
    "keras_strategy": "Keras predict under the same strategy, same per-replica batch",
    "make_parallel": "each batch sliced over towers in one graph; drops rows",
    "processes": "one process per device, each with Keras predict on its share",
    "mgpu_threads": "Predictor, engine threads",
    "mgpu_mirrored": "Predictor, engine mirrored",
    "mgpu_make_parallel": "Keras predict of make_parallel; drops no rows",
    "ray": "Predictor, engine ray: one process per device",
    "strategy_run": "bare strategy.run in a loop, no input, no results",
    "limit": "bare compiled forward passes, one thread per device",
}

OURS = ("mgpu_threads", "mgpu_mirrored")

CASES = {
    "throughput": "rows per second on many rows",
    "defaults": "the same with each side's default arguments",
    "small_calls": "seconds of one small call on a warm model",
    "memory": "peak anonymous memory from file to file",
    "one_device": "one replica or several on one device",
}

CASE_CONTENDERS: dict[str, tuple[str, ...]] = {
    "throughput": tuple(CONTENDERS),
    "defaults": ("keras", "keras_strategy", *OURS),
    "small_calls": ("keras", "keras_strategy", *OURS, "strategy_run"),
    "memory": OURS,
    "one_device": ("mgpu_threads", "mgpu_mirrored", "keras_strategy"),
}
"""Case -> the contenders that it can measure."""

BY_DEFAULT: dict[str, tuple[str, ...]] = {"one_device": ("mgpu_threads",)}
"""Case -> its default contenders, if not all of them."""

NEEDS = {"ray": "ray"}
"""Contender -> a package without which it is left out by default."""

CASE_MODELS = {
    "throughput": ("tiny", "mlp", "cnn", "resnet50"),
    "defaults": ("tiny", "mlp"),
    "small_calls": ("tiny",),
    "memory": ("tiny",),
    "one_device": ("mlp", "cnn"),
}
"""Case -> the models that it measures by default."""
