"""Several models as one: which go together, in which formats, with which options."""

import dataclasses
import re

import keras
import numpy as np
import pytest
import scipy.sparse
import tensorflow as tf
import tf_keras

import keras_mgpu_strategy as mgpu
from keras_mgpu_strategy import models
from keras_mgpu_strategy.models import xla
from tests import hub_shape

ROWS = np.random.default_rng(0).random((23, 4), np.float32)


def dense(units=3, columns=4, lib=keras, hidden=5, **options):
    layers = lib.layers
    inputs = lib.Input((columns,), dtype=options.pop("dtype", None))
    seen = layers.Dense(hidden, "relu")(inputs)
    return lib.Model(inputs, layers.Dense(units, "softmax", **options)(seen))


def two_inputs(names, arrange, units=2):
    inputs = [keras.Input((4,), name=names[0]), keras.Input((3,), name=names[1])]
    joined = keras.layers.Concatenate()(inputs)
    return keras.Model(arrange(*inputs), keras.layers.Dense(units)(joined))


def predictor(members, strategies, num_replicas=2, **options):
    with strategies[num_replicas].scope():
        return mgpu.Predictor(members, **options)


def assert_close(found, expected):
    np.testing.assert_allclose(found, expected, 1e-5, 1e-6)


def mean_of(members, x):
    return np.mean([member.predict(x, verbose=0) for member in members], 0)


class Named(keras.Model):
    """Declares nothing until it is called."""

    def __init__(self, units, key=None, name=None):
        super().__init__(name=name)
        self.head, self.key, self.units = keras.layers.Dense(units), key, units

    def call(self, inputs):
        return {self.key: self.head(inputs)} if self.key else self.head(inputs)

    def get_config(self):
        return {"units": self.units, "key": self.key, "name": self.name}


def with_dict(key):
    model = dense()
    return keras.Model(model.inputs, {key: model.output})


def integers():
    model = dense()
    return keras.Model(model.inputs, keras.ops.cast(model.output, "int32"))


DIFFERING = {
    "classes": (dense(4), "returns (None, 4) float32, but", "(None, 3) float32"),
    "columns": (dense(3, 6), "takes (None, 6) float32, but", "takes (None, 4)"),
    "dtype of inputs": (dense(dtype="int32"), "takes (None, 4) int32, but", "float32"),
    "dtype of outputs": (integers(), "returns (None, 3) int32, but", "float32"),
    "structure": (with_dict("a"), "returns {'a': (None, 3) float32}, but", "None, 3"),
    "number of inputs": (
        two_inputs("ab", lambda *x: [*x]),
        "takes [(None, 4) float32, (None, 3) float32], but",
        "takes (None, 4)",
    ),
}


@pytest.mark.parametrize("case", DIFFERING)
def test_what_differs_is_named(case, strategies, tmp_path):
    other, says, expected = DIFFERING[case]
    first = dense()
    with pytest.raises(ValueError, match=re.escape(says)) as info:
        predictor([first, dense(), other], strategies)
    message = str(info.value)
    assert f"model 2 ({other.name!r}) {says} model 0 ({first.name!r})" in message
    assert expected in message
    if case == "classes":
        paths = [tmp_path / "a.keras", tmp_path / "b.keras"]
        first.save(paths[0])
        other.save(paths[1])
        with pytest.raises(ValueError, match=re.escape(f"model 1 ('{paths[1]}')")):
            mgpu.load(paths)


@pytest.mark.parametrize("key", [None, "a"])
def test_what_models_declare_late_is_compared_when_it_is_known(key, strategies):
    several = predictor([Named(3, "a", "x"), Named(3, key, "y")], strategies)
    if key is None:
        with pytest.raises(ValueError, match=r"model 1 \('y'\) returns \(.*\{'a': "):
            several.predict(ROWS, verbose=0)
        return
    found = several.predict(ROWS, 8, verbose=0)["a"]
    singles = [member.predict(ROWS, verbose=0)["a"] for member in several.model]
    assert_close(found, np.mean(singles, 0))
    assert isinstance(several.model, list)


def test_options_that_do_not_fit_the_number_of_models():
    for nothing in ([], ()):
        with pytest.raises(ValueError, match="an empty list of models, expected at"):
            mgpu.load(nothing)
        with pytest.raises(ValueError, match="an empty list of models, expected at"):
            mgpu.Predictor(nothing)
    with pytest.raises(ValueError, match="combine='mean' with one model. Pass a list"):
        mgpu.Predictor(dense(), combine="mean")
    with pytest.raises(ValueError, match=r"combine='sum'. Expected one of \[None, 'me"):
        mgpu.Predictor([dense(), dense()], combine="sum")
    with pytest.raises(FileNotFoundError, match=r"none\.keras"):
        mgpu.load(["none.keras", "none.keras"])
    with pytest.raises(FileNotFoundError, match="Of several models, pass a list"):
        mgpu.load("none*.keras")
    model = dense()
    assert_close(mgpu.Predictor([model]).predict(ROWS), model.predict(ROWS, verbose=0))


def test_formats_and_libraries_may_differ(strategies, tmp_path):
    plain = [dense(), dense(hidden=7), dense(lib=tf_keras), dense(hidden=2)]
    plain[0].save(tmp_path / "a.keras")
    plain[1].save(tmp_path / "b.h5")
    plain[2].save(tmp_path / "c.keras")
    plain[3].export(tmp_path / "d", verbose=False)
    paths = [tmp_path / name for name in ("a.keras", "b.h5", "c.keras", "d")]
    expected = np.mean([model.predict(ROWS, verbose=0) for model in plain], 0)
    for order in (paths, tuple(paths[::-1])):
        with strategies[3].scope():
            several = mgpu.load(order)
        assert_close(several.predict(ROWS, 7, verbose=0), expected)
    with strategies[2].scope(), pytest.raises(ValueError, match="for the SavedModel"):
        mgpu.load(paths, precision="bfloat16")


class Doubled(keras.layers.Layer):
    def call(self, inputs):
        return inputs * 2


def test_objects_and_safe_mode_are_for_all_files(tmp_path):
    paths = [tmp_path / "a.keras", tmp_path / "b.keras"]
    for path in paths:
        keras.Sequential([keras.Input((4,)), Doubled()]).save(path)
    found = mgpu.load(paths, custom_objects={"Doubled": Doubled}).predict(ROWS)
    np.testing.assert_array_equal(found, ROWS * 2)
    keras.Sequential([keras.Input((4,)), keras.layers.Lambda(lambda x: x)]).save(
        paths[1]
    )
    with pytest.raises(ValueError, match="Lambda"):
        mgpu.load(paths, custom_objects={"Doubled": Doubled})


def test_inputs_may_have_other_names(strategies):
    members = [two_inputs(names, lambda *x: [*x]) for names in ("ab", "xy")]
    three = ROWS[:, :3].copy()
    expected = mean_of(members, [ROWS, three])
    several = predictor(members, strategies)
    for x in ([ROWS, three], {"b": three, "a": ROWS, "c": ROWS}):
        assert_close(several.predict(x, 8, verbose=0), expected)
    by_name = [two_inputs("ab", lambda a, b: {"a": a, "b": b}) for _ in range(2)]
    several = predictor(by_name, strategies)
    x = {"a": ROWS, "b": three}
    assert_close(several.predict(x, verbose=0), mean_of(by_name, x))
    other = two_inputs("xy", lambda a, b: {"x": a, "y": b})
    with pytest.raises(ValueError, match=r"takes \{'x': .*takes \{'a': "):
        predictor([by_name[0], other], strategies)
    only = keras.Input((4,), name="only")
    named = keras.Model({"only": only}, keras.layers.ReLU()(only))
    bare = keras.Sequential([keras.Input((4,)), keras.layers.ReLU()])
    for members in ([named, bare], [bare, named]):
        found = predictor(members, strategies).predict(ROWS, verbose=0)
        np.testing.assert_array_equal(found, ROWS)


def test_inputs_of_the_same_names_are_given_by_name(strategies):
    def minus(names):
        inputs = [keras.Input((4,), name=name) for name in names]
        return keras.Model(inputs, keras.layers.Subtract()(inputs))

    several = predictor([minus("ab"), minus("ba")], strategies, combine="stack")
    found = several.predict({"a": ROWS, "b": 2 * ROWS}, 8, verbose=0)
    np.testing.assert_array_equal(found, np.stack([-ROWS, ROWS], 1))


def test_shapes_that_one_of_them_fixes(strategies):
    free = keras.Sequential([keras.Input((None, 4)), keras.layers.ReLU()])
    fixed = keras.Sequential([keras.Input((6, 4)), keras.layers.ReLU()])
    x = np.ones((5, 6, 4), np.float32)
    several = predictor([free, fixed], strategies)
    np.testing.assert_array_equal(several.predict(x, verbose=0), x)
    with pytest.raises(ValueError, match=r"expected shape \(None, 6, 4\)"):
        several.predict(x[:, :5], verbose=0)


def branching(lib):
    class Branching(lib.layers.Layer):
        def call(self, inputs):
            if tf.reduce_sum(inputs) > 0:  # becomes a graph only by AutoGraph
                return inputs * 2
            return inputs

    return lib.Sequential([lib.Input((4,)), Branching()])


def test_autograph_is_for_members_of_tf_keras(strategies):
    plain = keras.Sequential([keras.Input((4,)), keras.layers.ReLU()])
    for engine in ("threads", "mirrored"):
        several = predictor([branching(tf_keras), plain], strategies, engine=engine)
        assert_close(several.predict(ROWS, 8, verbose=0), 1.5 * ROWS)
        assert_close(several.predict(-ROWS, 8, verbose=0), -0.5 * ROWS)


def random_rows(seed):
    class Noisy(keras.layers.Dropout):
        def call(self, inputs, training=None):
            return super().call(inputs, training=True)

    return keras.Sequential([keras.Input((4,)), Noisy(0.5, seed=seed)])


def test_members_draw_what_they_draw_alone(strategies):
    members = [random_rows(seed) for seed in (3, 4)]
    singles = [predictor(m, strategies).predict(ROWS, 8, verbose=0) for m in members]
    assert not np.array_equal(*singles)
    for num_replicas in (2, 4):
        several = predictor(members, strategies, num_replicas, combine="stack")
        found = several.predict(ROWS, 4 * num_replicas, verbose=0)
        np.testing.assert_array_equal(found, np.stack(singles, 1))


def test_the_same_model_twice(strategies):
    model = dense()
    several = predictor([model, model], strategies)
    assert_close(several.predict(ROWS, verbose=0), model.predict(ROWS, verbose=0))
    assert several.model[0] is not several.model[1]
    with strategies[3].scope():
        live = random_rows(5)
        several = mgpu.Predictor([live, live, dense(4)], combine="stack")
    assert several.model[0] is several.model[1] is live
    first, second, _ = np.moveaxis(several.predict(ROWS, verbose=0), 1, 0)
    assert not np.array_equal(first, second)


class Halved(keras.Model):
    def predict_step(self, data):
        return super().predict_step(data) / 2


def test_a_predict_step_of_all_or_of_none(strategies):
    members = []
    for units in (5, 6):
        inputs = keras.Input((4,))
        members.append(Halved(inputs, dense(hidden=units)(inputs)))
    several = predictor(members, strategies)
    assert_close(several.predict(ROWS, verbose=0), mean_of(members, ROWS))
    with pytest.raises(ValueError, match=r"`predict_step`.* in all of them or in none"):
        predictor([members[0], dense()], strategies)


def test_tasks_preprocess_alike(strategies):
    tasks, texts = [hub_shape.text_task() for _ in range(2)], hub_shape.texts(11)
    tasks[1].set_weights([0.5 * w for w in tasks[0].get_weights()])
    expected = np.mean([task.predict(np.array(texts), verbose=0) for task in tasks], 0)
    several = predictor(tasks, strategies)
    assert_close(several.predict(texts, 4, verbose=0), expected)
    shorter = hub_shape.text_task()
    shorter.preprocessor.sequence_length = 3
    bare = hub_shape.text_task()
    bare.preprocessor = None
    for other in (shorter, bare):
        with pytest.raises(ValueError, match=r"Set `preprocessor = None` on each, and"):
            predictor([tasks[0], other], strategies)


def test_sparse_and_absent_inputs(strategies):
    members = [dense(), dense(lib=tf_keras), dense(hidden=2)]
    several = predictor(members, strategies, combine="stack")
    found = several.predict(scipy.sparse.csr_array(ROWS), 8, verbose=0)
    assert_close(found, several.predict(ROWS, 8, verbose=0))
    sparse = []
    for units in (3, 4):
        inputs = keras.Input((4,), sparse=True)
        hidden = keras.layers.Dense(units)(inputs)
        sparse.append(keras.Model(inputs, keras.layers.Dense(2)(hidden)))
    x = scipy.sparse.csr_array(ROWS * (ROWS > 0.5))
    found = predictor(sparse, strategies).predict(x, 8, verbose=0)
    assert_close(found, mean_of(sparse, x.toarray()))


def test_outputs_of_layers_and_precision(strategies):
    members = []
    for hidden in (5, 6):
        inputs = keras.Input((4,))
        pooled = keras.layers.Dense(2, name="pool")(inputs)
        outputs = keras.layers.Dense(hidden, name="head")(pooled)
        members.append(keras.Model(inputs, outputs))
    with pytest.raises(ValueError, match="Pass `outputs=` to choose what is returned"):
        predictor(members, strategies)
    pools = [keras.Model(m.input, m.get_layer("pool").output) for m in members]
    several = predictor(members, strategies, outputs="pool", precision="bfloat16")
    found = several.predict(ROWS, 8, verbose=0)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, mean_of(pools, ROWS), 0.05, 0.05)
    with pytest.raises(ValueError, match="outputs='pool': model 'func.* no such"):
        predictor([members[0], dense()], strategies, outputs="pool")


def test_every_member_is_asked_about_xla(strategies, monkeypatch):
    monkeypatch.setattr(xla, "works_on", lambda device: True)
    gpus = ("/job:localhost/replica:0/task:0/device:GPU:0",)
    plain, refused = dense(), dense()
    refused.compile(loss="mse", jit_compile=False)

    def choice(*members):
        each = [models.replicate(member, strategies[1]) for member in members]
        several = models.ensemble(each, ["a", "b"], ["identity"])
        assert several.strategy is strategies[1]
        return models.step_choices(several, gpus)[0] == "xla"

    assert choice(plain, dense())
    assert not choice(plain, refused)


@pytest.mark.parametrize("combine", ["mean", "gmean"])
def test_losses_and_metrics_of_the_first_compiled_model(combine, strategies):
    members = [dense(), dense(), dense()]
    members[1].compile(loss="mse", metrics=["mae"])
    members[2].compile(loss="mae")
    labels = np.random.default_rng(1).random((23, 3))
    several = predictor(members, strategies, combine=combine)
    outputs = several.predict(ROWS, 8, verbose=0).astype(np.float64)
    expected = [((outputs - labels) ** 2).mean(), np.abs(outputs - labels).mean()]
    np.testing.assert_allclose(several.evaluate(ROWS, labels, 8, 0), expected, 1e-4)
    several = predictor([dense(), dense()], strategies, combine=combine)
    with pytest.raises(ValueError, match=r"Call `predictor.model\[0\].compile"):
        several.evaluate(ROWS, labels, verbose=0)
    several.model[1].compile(loss="mse")
    assert np.isfinite(several.evaluate(ROWS, labels, verbose=0))
    with pytest.raises(ValueError, match="evaluate is not defined for combine='vote'"):
        predictor(members, strategies, combine="vote").evaluate(ROWS, labels, verbose=0)


def test_callbacks_are_given_the_list_of_models(strategies):
    seen = []

    class Watch(keras.callbacks.Callback):
        def on_predict_end(self, logs=None):
            seen.append(self.model)

    several = predictor([dense(), dense()], strategies)
    several.predict(ROWS, verbose=0, callbacks=[Watch()])
    assert seen[0] is several.model
    assert several.predict_on_batch(ROWS[:3]).shape == (3, 3)


def test_the_digest_has_every_member_in_order(strategies):
    first, second, third = (dense() for _ in range(3))
    each = [models.replicate(m, strategies[1]) for m in (first, second, third)]

    def digest(*indices):
        some = [each[index] for index in indices]
        return models.digest(models.ensemble(some, "abc"[: len(some)], ["identity"]))

    different = [(0, 1), (1, 0), (0, 2), (0, 1, 2), (0, 0)]
    digests = {digest(*indices) for indices in different}
    assert len(digests | {models.digest(each[0])}) == 6
    assert digest(0, 1) == digest(0, 1)
    assert dataclasses.replace(each[0]).each == (each[0],)
