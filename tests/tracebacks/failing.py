"""A user's script with every kind of mistake; prints the tracebacks as JSON."""

import gc
import json
import os
import signal
import sys
import traceback

os.environ["CUDA_VISIBLE_DEVICES"] = "-1"

import keras
import numpy as np

import keras_mgpu_strategy as mgpu

ROWS = np.zeros((100, 2), np.float32)


class Refuses(keras.layers.Layer):
    def call(self, inputs):
        if inputs.shape[-1] == 2:
            raise ZeroDivisionError("by the layer")
        return inputs


class RefusesWhenTraced(keras.layers.Layer):
    def call(self, inputs):
        if inputs.shape[0] is not None:
            raise ZeroDivisionError("by the layer")
        return inputs


class Fails(keras.callbacks.Callback):
    def on_predict_batch_end(self, batch, logs=None):
        raise ZeroDivisionError("by the callback")

    def on_test_batch_end(self, batch, logs=None):
        raise ZeroDivisionError("by the callback")


def dense_model(*layers):
    model = keras.Sequential([keras.Input((2,)), *layers, keras.layers.Dense(3)])
    model.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def batches():
    yield ROWS
    raise ZeroDivisionError("by the generator")


def interrupted_batches():
    yield ROWS
    signal.raise_signal(signal.SIGINT)
    yield ROWS


def refusing():
    model = keras.Sequential([Refuses(), keras.layers.Dense(1)])
    return mgpu.Predictor(model, **OPTIONS)


def wrong_shape():
    PREDICTOR.predict(np.zeros((10, 3), np.float32), verbose=0)


def generator():
    PREDICTOR.predict(batches(), verbose=0)


def callback():
    PREDICTOR.predict(ROWS, 10, verbose=0, callbacks=[Fails()])


def callback_of_evaluate():
    PREDICTOR.evaluate(ROWS, np.zeros(100), verbose=0, callbacks=[Fails()])


def model_call():
    refusing().predict(ROWS, verbose=0)


def late_model_call():
    model = dense_model(RefusesWhenTraced())
    mgpu.Predictor(model, **OPTIONS).predict(ROWS, 10, verbose=0)


def missing_file():
    mgpu.load("there_is_none.keras")


def missing_rows():
    PREDICTOR.predict("there_is_none.npy", verbose=0)


def invalid_option():
    mgpu.Predictor(dense_model(), **OPTIONS, precision="float3")


def no_such_device():
    with mgpu.scope("cpu:77"):
        pass


def bad_label():
    PREDICTOR.evaluate(ROWS, np.full(100, 9), verbose=0)


def few_labels():
    PREDICTOR.evaluate(ROWS, np.zeros(99), verbose=0)


def loop():
    for _ in PREDICTOR.predict_iter(batches(), 8):
        pass


def loop_of_batches():
    for _ in PREDICTOR.predict_batches(batches()):
        pass


def drop_in():
    mgpu.predict_proba(dense_model(), batches(), verbose=0)


def to_file():
    PREDICTOR.predict_to("out.npy", batches(), verbose=0, overwrite=True)


def parallel():
    mgpu.make_parallel(dense_model(), devices="cpu:9")


def parallel_call():
    model = keras.Sequential([Refuses(), keras.layers.Dense(1)])
    mgpu.make_parallel(model, devices="cpu:0").predict(ROWS, verbose=0)


def images():
    mgpu.files.Images("folder", color_mode="blue")


def ray_options():
    mgpu.RayOptions(num_actors=0)


def interrupt():
    PREDICTOR.predict(interrupted_batches(), verbose=0)


def interrupt_to_file():
    PREDICTOR.predict_to("out.npy", interrupted_batches(), verbose=0, overwrite=True)


def interrupted_evaluation():
    PREDICTOR.evaluate(with_labels(), verbose=0)


def with_labels():
    yield ROWS, np.zeros(100)
    signal.raise_signal(signal.SIGINT)
    yield ROWS, np.zeros(100)


CASES = [wrong_shape, generator, callback, callback_of_evaluate, model_call]
CASES += [late_model_call]
CASES += [missing_file, missing_rows, invalid_option, no_such_device, bad_label]
CASES += [few_labels, loop, loop_of_batches, drop_in, to_file, parallel, parallel_call]
CASES += [images, ray_options, interrupt, interrupt_to_file, interrupted_evaluation]


def failing(case):
    """The error of a case: its text, its frames, and the frames of its causes."""
    try:
        case()
    except BaseException as error:
        frames = traceback.extract_tb(error.__traceback__)[1:]
        chain, part = [], error
        while part := part.__cause__ or part.__context__:
            inner = traceback.extract_tb(part.__traceback__)
            chain.append([[frame.filename, frame.name] for frame in inner])
        return {
            "error": type(error).__name__,
            "said": [str(error).split("\n")[0], *getattr(error, "__notes__", [])],
            "frames": [[frame.filename, frame.name] for frame in frames],
            "chain": chain,
            "printed": "".join(traceback.format_exception(error)),
        }
    finally:
        gc.collect()  # Ray's processes end with a Predictor
    raise AssertionError(f"{case.__name__} did not fail")


def both(case):
    """The error with all frames, and with the default setting."""
    found = {}
    for full in "10":
        os.environ["MGPU_FULL_TRACEBACK"] = full
        found[full] = failing(case)
    return found


def begin(engine):
    """Makes what the cases need."""
    global OPTIONS, PREDICTOR
    OPTIONS = {"engine": engine}
    if engine == "ray":
        OPTIONS["ray"] = mgpu.RayOptions(num_actors=1, cpus_per_actor=1)
    PREDICTOR = mgpu.Predictor(dense_model(), **OPTIONS)
    PREDICTOR.predict(ROWS, verbose=0)


if __name__ == "__main__":
    begin(sys.argv[1])
    chosen = [case for case in CASES if case.__name__ in sys.argv[2:]]
    print(json.dumps({case.__name__: both(case) for case in chosen}))
