"""What the size of chunks, and the memory they are copied from, gain on a GPU.

    python benchmarks/gpu_chunks.py --model=mlp --batch=1024 --rows=327680

All ways run in turn, in one process, on the first GPU, and so does Keras' `predict`.
`kept` copies through page-locked memory that is reused, as the package does; `new`
through a new tensor for each chunk. `mirrored` always makes new tensors.
"""

import json
import time

import keras
import numpy as np
from absl import app, flags

import keras_mgpu_strategy as mgpu
from keras_mgpu_strategy.compute import sizes, transfers

layers = keras.layers
WAYS = [
    *(("threads", memory, size) for memory in ("new", "kept") for size in (4, 32)),
    ("threads", "kept", 64),
    *(("mirrored", "new", size) for size in (4, 32)),
]

_MODEL = flags.DEFINE_enum("model", "mlp", ["linear", "mlp", "cnn", "resnet50"], "")
_BATCH = flags.DEFINE_integer("batch", 1024, "Rows of a batch.")
_ROWS = flags.DEFINE_integer("rows", 327_680, "Rows of random numbers.")
_RUNS = flags.DEFINE_integer("runs", 5, "Of each way; the first two are not counted.")


def linear():
    """Needs very little computing."""
    return keras.Sequential([keras.Input((784,)), layers.Dense(10)])


def mlp():
    """784-512-512-10."""
    hidden = [layers.Dense(512, "relu") for _ in range(2)]
    last = layers.Dense(10, activation="softmax")
    return keras.Sequential([keras.Input((784,)), *hidden, last])


def cnn():
    """Three convolutions with batch normalization, on 32 x 32 pixels."""
    parts = []
    for filters in (32, 64, 128):
        parts += [layers.Conv2D(filters, 3, padding="same", use_bias=False)]
        parts += [layers.BatchNormalization(), layers.ReLU(), layers.MaxPooling2D()]
    last = [layers.GlobalAveragePooling2D(), layers.Dense(10, activation="softmax")]
    return keras.Sequential([keras.Input((32, 32, 3)), *parts, *last])


def resnet50():
    """With random weights."""
    return keras.applications.ResNet50(weights=None)


def predictors(model):
    """A Predictor for each engine and kind of memory."""
    found, can_be_staged = {}, transfers._can_be_staged
    x = np.zeros((1, *model.input_shape[1:]), np.float32)
    for engine, memory in dict.fromkeys(way[:2] for way in WAYS):
        transfers._can_be_staged = can_be_staged if memory == "kept" else never
        with mgpu.scope("gpu:0"):
            found[engine, memory] = mgpu.Predictor(model, engine=engine)
        found[engine, memory].predict(x, _BATCH.value, verbose=0)  # makes the copier
    transfers._can_be_staged = can_be_staged
    return found


def never(spec):
    """Stands in for `transfers._can_be_staged`."""
    del spec
    return False


def main(_):
    """Prints a line of JSON for each way."""
    with mgpu.scope("gpu:0"):
        model = globals()[_MODEL.value]()
    found = predictors(model)
    shape = (_ROWS.value, *model.input_shape[1:])
    x = np.random.default_rng(0).random(shape, np.float32)
    seconds = {way: [] for way in [*WAYS, ("keras",)]}
    for _ in range(_RUNS.value):
        for way in seconds:
            if way != ("keras",):
                sizes._TARGET_COPIED_BYTES = way[2] << 20
            began = time.perf_counter()
            chosen = model if way == ("keras",) else found[way[:2]]
            chosen.predict(x, batch_size=_BATCH.value, verbose=0)
            seconds[way].append(round(time.perf_counter() - began, 3))
    for way, each in seconds.items():
        rate = round(_ROWS.value / float(np.median(each[2:])))
        print(json.dumps({"way": way, "seconds": each, "rows_per_second": rate}))


if __name__ == "__main__":
    app.run(main)
