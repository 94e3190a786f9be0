"""Digests: the same for the same model anywhere, different after any change."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import keras_mgpu_strategy as mgpu
from keras_mgpu_strategy.models import digest, read, replicate
from tests import children

layers = keras.layers


def make(units=4, activation="relu", rate=0.5, bias=True, seed=3):
    model = keras.Sequential(
        [
            keras.Input((3,)),
            layers.Dense(units, activation, use_bias=bias),
            layers.BatchNormalization(),
            layers.Dropout(rate),
            layers.Dense(2),
        ]
    )
    random = np.random.default_rng(seed)
    model.set_weights([random.random(w.shape) for w in model.get_weights()])
    return model


@pytest.fixture(scope="module")
def digest_on(strategies):
    """Digest of a model on a number of replicas."""

    def digest_of(model, num_replicas=2, precision=None):
        return digest(replicate(model, strategies[num_replicas], precision))

    return digest_of


@pytest.fixture(scope="module")
def base(digest_on):
    return digest_on(make())


def test_a_digest_is_a_sha256(base):
    assert len(base) == 64
    assert int(base, 16) > 0


@pytest.mark.parametrize("num_replicas", [1, 2, 3])
def test_replicas_do_not_matter(digest_on, base, num_replicas):
    assert digest_on(make(), num_replicas) == base


def test_the_scope_of_a_model_does_not_matter(strategies, base):
    with strategies[2].scope():
        assert digest(replicate(make(), strategies[2])) == base
    assert digest(replicate(make(), strategies[1])) == base


def test_running_a_model_does_not_matter(strategies, base):
    with strategies[2].scope():
        predictor = mgpu.Predictor(make())
    predictor.predict(np.zeros((5, 3), np.float32), verbose=0)
    assert digest(replicate(predictor.model, strategies[2])) == base


def write_digest(path, num_replicas, model_path=None):
    """In its own process, on its own devices, after other models."""
    with mgpu.scope("cpu", replicas_per_device=num_replicas) as strategy:
        make(units=9)
        make(units=8)
        model = make() if model_path is None else mgpu.load(model_path).model
        path.write_text(digest(replicate(model, strategy)))


def test_other_processes_find_the_same(base, tmp_path):
    make().save(tmp_path / "model.keras")
    jobs = [(1, None), (2, None), (2, tmp_path / "model.keras")]
    processes = [
        children.start(write_digest, tmp_path / f"{index}", *job)
        for index, job in enumerate(jobs)
    ]
    assert [children.end_of(process) for process in processes] == [0, 0, 0]
    assert {(tmp_path / f"{index}").read_text() for index in range(3)} == {base}


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_the_digest_is_the_same_for_saved_models(strategies, base, suffix, tmp_path):
    path = tmp_path / f"model{suffix}"
    make().save(path)
    assert digest(read(path, strategies[2])) == base


def test_a_folder_of_tf_keras_has_a_digest(strategies, tmp_path):
    path = tmp_path / "model"
    layer = tf_keras.layers.Dense(2)
    tf_keras.Sequential([tf_keras.Input((3,)), layer]).save(path, save_format="tf")
    first, again = (read(path, strategies[count]) for count in (1, 2))
    assert digest(first) == digest(again)


def test_exported_models_are_distinguished_by_their_weights(strategies, tmp_path):
    for seed in (3, 4):
        make(seed=seed).export(tmp_path / f"{seed}", verbose=False)
    first, again = (read(tmp_path / "3", strategies[count]) for count in (1, 2))
    other = read(tmp_path / "4", strategies[2])
    assert digest(first) == digest(again) != digest(other)


class Scaled(tf.Module):
    """Does not know its variables and layers once it is loaded."""

    def __init__(self, words, scale=2.0, *, adds=False):
        super().__init__()
        self.scale, self.adds = tf.Variable(scale), adds
        kind = tf.lookup.TextFileIndex
        columns = (tf.string, kind.WHOLE_LINE, tf.int64, kind.LINE_NUMBER)
        initializer = tf.lookup.TextFileInitializer(str(words), *columns)
        self.table = tf.lookup.StaticHashTable(initializer, -1)

    @tf.function(input_signature=[tf.TensorSpec((None,), tf.string)])
    def __call__(self, words):
        found = tf.cast(self.table.lookup(words), tf.float32)
        return found + self.scale if self.adds else found * self.scale


def test_modules_are_distinguished_by_all_that_they_compute_with(strategies, tmp_path):
    kinds = {"base": {}, "weight": {"scale": 3.0}, "graph": {"adds": True}, "words": {}}
    found = {}
    for name, arguments in kinds.items():
        words = tmp_path / f"{name}-words" / "words.txt"
        words.parent.mkdir()
        words.write_text("b" if name == "words" else "a")
        module = Scaled(words, **arguments)
        tf.saved_model.save(module, str(tmp_path / name), signatures=module.__call__)
        found[name] = {digest(read(tmp_path / name, strategies[n])) for n in (1, 2)}
    assert all(len(digests) == 1 for digests in found.values())
    assert len(set().union(*found.values())) == len(kinds)


CHANGES = {
    "units": lambda: make(units=5),
    "activation": lambda: make(activation="tanh"),
    "bias": lambda: make(bias=False),
    "seed": lambda: make(seed=4),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_the_model_changes_it(digest_on, base, change):
    assert digest_on(CHANGES[change]()) != base


def test_a_change_of_any_weight_changes_it(digest_on, base):
    model = make()
    found = {base}
    for index, weight in enumerate(model.get_weights()):
        changed = model.get_weights()
        changed[index] = weight.copy()
        changed[index].flat[-1] = np.nextafter(changed[index].flat[-1], 9)
        other = make()
        other.set_weights(changed)
        found.add(digest_on(other))
    assert len(found) == 1 + len(model.get_weights())


def test_weights_that_change_places_change_it(digest_on):
    def pair(first, second):
        inputs = keras.Input((2,))
        parts = [layers.Dense(2), layers.Dense(2)]
        model = keras.Model(inputs, layers.Add()([part(inputs) for part in parts]))
        for part, value in zip(parts, (first, second), strict=True):
            part.set_weights([np.full((2, 2), value), np.zeros(2)])
        return model

    assert digest_on(pair(1, 2)) != digest_on(pair(2, 1))


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_the_precision_changes_it(digest_on, base, precision):
    low = digest_on(make(), precision=precision)
    assert low != base
    assert digest_on(make(), 1, precision=precision) == low


@pytest.mark.parametrize("library", [keras, tf_keras], ids=["keras", "tf_keras"])
def test_the_graph_of_layers_counts(digest_on, library):
    def wired(swapped=False, factor=2.0):
        a, b = library.Input((2,)), library.Input((2,))
        pair = (b, a) if swapped else (a, b)
        inner = library.Model([a, b], library.layers.Subtract()(pair) * factor)
        a, b = library.Input((2,)), library.Input((2,))
        return library.Model([a, b], library.layers.Add()([inner([a, b]), b]))

    base = digest_on(wired())
    assert digest_on(wired(), 1) == base
    assert digest_on(wired(swapped=True)) != base
    assert digest_on(wired(factor=3.0)) != base


class Table(keras.layers.Layer):
    """Its configuration is not JSON."""

    def __init__(self, table, **kwargs):
        super().__init__(**kwargs)
        self.table = table

    def call(self, inputs):
        return inputs

    def get_config(self):
        return {**super().get_config(), "table": self.table}


@pytest.mark.parametrize(
    "layer",
    [
        lambda value: tf_keras.layers.Rescaling(np.float32(value)),
        lambda value: Table(np.array([1, value])),
        lambda value: Table({(0, 1): value}),
    ],
    ids=["scalar", "array", "tuple"],
)
def test_settings_of_any_type_count(layer, digest_on):
    def model_of(value):
        made = layer(value)
        lib = tf_keras if isinstance(made, tf_keras.layers.Layer) else keras
        return lib.Sequential([lib.Input((2,)), made])

    base = digest_on(model_of(2))
    assert digest_on(model_of(2), 1) == base
    assert digest_on(model_of(3)) != base


def words(vocabulary):
    inputs = keras.Input((1,), dtype="string")
    return keras.Model(inputs, layers.StringLookup(vocabulary=vocabulary)(inputs))


def texts(sentences):
    layer = layers.TextVectorization(output_mode="tf_idf")
    layer.adapt(sentences)
    inputs = keras.Input((1,), dtype="string")
    return keras.Model(inputs, layer(inputs))


@pytest.mark.parametrize(
    ("make_model", "first", "second"),
    [
        (words, ["a", "b"], ["b", "a"]),
        (texts, ["a b c", "a b"], ["a b d", "a b"]),
        (texts, ["a a b c", "a b"], ["a b c", "a b", "a"]),
    ],
    ids=["vocabulary", "adapted", "frequencies"],
)
def test_vocabularies_count(digest_on, make_model, first, second, tmp_path, strategies):
    base = digest_on(make_model(first))
    assert digest_on(make_model(first), 1) == base
    assert digest_on(make_model(second)) != base
    make_model(first).save(tmp_path / "model.keras")
    assert digest(read(tmp_path / "model.keras", strategies[2])) == base


def scaled(function):
    return keras.Sequential([keras.Input((2,)), layers.Lambda(function)])


def test_the_code_of_a_lambda_counts(digest_on, strategies, tmp_path):
    base = digest_on(scaled(lambda x: x * 1))
    assert digest_on(scaled(lambda y: y * 1), 1) == base
    assert digest_on(scaled(lambda x: x * 2)) != base
    scaled(lambda x: x * 1).save(tmp_path / "model.keras")
    loaded = read(tmp_path / "model.keras", strategies[2], safe_mode=False)
    assert digest(loaded) == base


@pytest.mark.filterwarnings("ignore:The object being serialized includes a `lambda`")
@pytest.mark.parametrize("kind", ["constant", "closure", "activation"])
def test_the_code_of_layers_counts(digest_on, kind):
    def layer_of(value):
        class Own(layers.Layer):
            factor = value if kind == "constant" else 0

            def call(self, inputs):
                return inputs * (value if kind == "closure" else self.factor)

        if kind == "activation":
            return layers.Dense(2, activation=lambda x: x * value)
        return Own()

    def model_of(value):
        return with_ones(keras.Sequential([keras.Input((2,)), layer_of(value)]))

    base = digest_on(model_of(2))
    assert digest_on(model_of(2), 1) == base
    assert digest_on(model_of(3)) != base


def with_ones(model):
    model.set_weights([np.ones(w.shape) for w in model.get_weights()])
    return model


def test_compile_settings_do_not_count(digest_on):
    model = make()
    base = digest_on(model)
    model.compile("adam", loss=lambda y, z: y - z)
    assert digest_on(model) == base
