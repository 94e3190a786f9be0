"""Tasks of KerasHub, whose `predict` preprocesses, give what `task.predict` gives."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_mgpu_strategy as mgpu
from keras_mgpu_strategy import models
from tests import hub_shape

NUM_ROWS = 37
TEXTS = hub_shape.texts(NUM_ROWS)
IMAGES = hub_shape.images(NUM_ROWS)
BATCHES = [TEXTS[start : start + 5] for start in range(0, NUM_ROWS, 5)]
HUB = pytest.mark.skipif(not hub_shape.HAS_HUB, reason="keras_hub is not installed")


@pytest.fixture(scope="module", params=["shape", pytest.param("hub", marks=HUB)])
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def text_task(kind):
    return hub_shape.text_task(kind)


@pytest.fixture(scope="module")
def image_task(kind):
    return hub_shape.image_task(kind)


def predictor(task, strategies, num_replicas=3, **options):
    with strategies[num_replicas].scope():
        return mgpu.Predictor(task, **options)


def assert_same(results, expected):
    assert results.shape == expected.shape
    np.testing.assert_allclose(results, expected, rtol=1e-5, atol=1e-6)


def test_a_task_that_preprocesses_is_not_evaluated(text_task, strategies):
    refusing = predictor(text_task, strategies)
    if not refusing.model.compiled:
        refusing.model.compile(loss="mse")
    with pytest.raises(ValueError, match="set `preprocessor = None` before"):
        refusing.evaluate(TEXTS, np.zeros((NUM_ROWS, 2)), verbose=0)


def slices(x, size=4):
    return tf.data.Dataset.from_tensor_slices(x).batch(size)


TEXT_INPUTS = {
    "list": lambda: TEXTS,
    "array": lambda: np.array(TEXTS),
    "tensor": lambda: tf.constant(TEXTS),
    "pairs": lambda: (TEXTS, TEXTS[::-1]),
    "data set": lambda: slices(TEXTS),
    "data set of pairs": lambda: slices(((TEXTS, TEXTS[::-1]),)),
    "data set with targets": lambda: slices((TEXTS, np.arange(NUM_ROWS))),
}
IMAGE_INPUTS = {
    "bytes": lambda: IMAGES,
    "floats": lambda: IMAGES.astype("float32"),
    "doubles": lambda: IMAGES.astype("float64"),
    "list": lambda: list(IMAGES),
    "data set": lambda: slices((IMAGES, np.arange(NUM_ROWS))),
}


@pytest.mark.parametrize("engine", ["threads", "mirrored"])
def test_texts(engine, text_task, strategies):
    own = predictor(text_task, strategies, engine=engine)
    for make in TEXT_INPUTS.values():
        expected = text_task.predict(make(), verbose=0)
        for batch_size in (None, 5):
            assert_same(own.predict(make(), batch_size, verbose=0), expected)


@pytest.mark.parametrize("engine", ["threads", "mirrored"])
def test_images(engine, image_task, strategies):
    own = predictor(image_task, strategies, engine=engine)
    for make in IMAGE_INPUTS.values():
        expected = image_task.predict(make(), verbose=0)
        assert_same(own.predict(make(), verbose=0), expected)


def test_other_methods(text_task, strategies):
    own, expected = (
        predictor(text_task, strategies),
        text_task.predict(TEXTS, verbose=0),
    )
    assert_same(own.predict_proba(TEXTS, verbose=0), expected)
    assert_same(own.predict_on_batch(TEXTS), text_task.predict_on_batch(TEXTS))
    results = own.predict_classes(TEXTS, verbose=0)
    np.testing.assert_array_equal(results, expected.argmax(axis=1))
    assert_same(
        np.concatenate(list(own.predict_batches(map(np.array, BATCHES)))), expected
    )
    assert_same(
        own.predict(iter([(np.array(b),) for b in BATCHES]), verbose=0), expected
    )
    assert own.predict(np.array([], "U5"), verbose=0).shape == (0, 3)
    assert own.predict(iter([]), verbose=0).shape == (0, 3)
    with strategies[2].scope():
        assert_same(mgpu.predict_proba(text_task, TEXTS, verbose=0), expected)


def test_files(text_task, image_task, strategies, tmp_path):
    own = predictor(text_task, strategies)
    expected = text_task.predict(TEXTS, verbose=0)
    (tmp_path / "texts.csv").write_text(
        "id,text\n" + "".join(f"1,{t}\n" for t in TEXTS)
    )
    rows = mgpu.files.Csv(tmp_path / "texts.csv", columns="text")
    assert_same(own.predict(rows, verbose=0), expected)
    np.save(tmp_path / "texts.npy", np.array(TEXTS))
    own.predict_to(tmp_path / "out.npy", tmp_path / "texts.npy", verbose=0)
    assert_same(np.load(tmp_path / "out.npy"), expected)
    (tmp_path / "images").mkdir()
    for row, image in enumerate(IMAGES):
        keras.utils.save_img(tmp_path / f"images/{row:02}.png", image, scale=False)
    rows = mgpu.files.Images(tmp_path / "images", image_size=(20, 24))
    results = predictor(image_task, strategies).predict(rows, verbose=0)
    assert_same(results, image_task.predict(IMAGES, verbose=0))


def test_loaded_tasks(kind, text_task, strategies, tmp_path):
    if kind == "hub":  # the stand-in does not save its vocabulary
        text_task.save(tmp_path / "task.keras")
        with strategies[2].scope():
            own = mgpu.load(tmp_path / "task.keras")
        expected = text_task.predict(TEXTS, verbose=0)
        assert_same(own.predict(TEXTS, verbose=0), expected)


def test_outputs_of_layers(kind, text_task, strategies):
    rows = text_task.preprocessor(np.array(TEXTS))
    rows = {name: np.asarray(array) for name, array in rows.items()}
    last = text_task.layers[-2]
    expected = {last.name: keras.Model(text_task.input, last.output).predict(rows)}
    if kind == "hub":
        backbone = text_task.backbone
        pooled = backbone.get_layer("pooled_dense")
        part = keras.Model(backbone.input, pooled.output)
        expected[f"{backbone.name}/pooled_dense"] = part.predict(rows)
        results = predictor(text_task, strategies, outputs=[*expected])
        results = results.predict(TEXTS, verbose=0)
        tf.nest.map_structure(assert_same, results, expected)
    for path, values in expected.items():
        own = predictor(text_task, strategies, outputs=path)
        assert_same(own.predict(TEXTS, verbose=0), values)


def test_the_preprocessor_is_part_of_the_digest_of_outputs(strategies):
    task, digests = hub_shape.text_task(), []
    for length in (8, 4, 8):
        task.preprocessor.sequence_length = length
        outputs = (task.layers[-1].name,)
        replicated = models.replicate(task, strategies[1], outputs=outputs)
        digests.append(models.digest(replicated))
    assert digests[0] == digests[2] != digests[1]


def test_a_task_of_the_scope(kind, strategies):
    with strategies[2].scope():
        task = hub_shape.text_task(kind)
        own = mgpu.Predictor(task)
        assert own.model is task
        results = own.predict(TEXTS, verbose=0)
    assert_same(results, hub_shape.text_task(kind).predict(TEXTS, verbose=0))


@pytest.mark.filterwarnings("error::UserWarning")
def test_without_a_preprocessor(kind, strategies):
    task = hub_shape.text_task(kind)
    expected = task.predict(TEXTS, verbose=0)
    rows = {k: np.asarray(v) for k, v in task.preprocessor(np.array(TEXTS)).items()}
    task.preprocessor = None
    assert_same(predictor(task, strategies).predict(rows, verbose=0), expected)


def test_a_change_of_the_preprocessor_counts_at_once(kind, strategies):
    task = hub_shape.text_task(kind)
    with strategies[2].scope():
        for length in (8, 4):
            task.preprocessor.sequence_length = length
            results = mgpu.predict_proba(task, TEXTS, verbose=0)
            assert_same(results, task.predict(TEXTS, verbose=0))


def test_a_function_as_the_preprocessor_may_pad_each_batch(strategies):
    task = hub_shape.text_task()
    tokenize = task.preprocessor.tokenizer

    def to_longest(x):
        ids = tf.cast(tokenize(x).to_tensor(), "int32")
        return {"token_ids": ids, "padding_mask": ids != 0}

    task.preprocessor = to_longest
    for engine in ("threads", "mirrored"):
        own = predictor(task, strategies, engine=engine)
        assert_same(own.predict(TEXTS, verbose=0), task.predict(TEXTS, verbose=0))


def test_a_step_of_the_user_is_given_all_that_preprocessing_returns(strategies):
    class Labelled(hub_shape.TextTask):
        def predict_step(self, data):
            x, y = data if isinstance(data, tuple) else (data, None)
            outputs = super().predict_step(data)
            return {"p": outputs, "n": x["token_ids"]} | ({} if y is None else {"y": y})

    task = Labelled(hub_shape.text_task().preprocessor)
    own = predictor(task, strategies)
    for make in (lambda: TEXTS, lambda: slices((TEXTS, np.arange(NUM_ROWS)))):
        expected = task.predict(make(), verbose=0)
        results = own.predict(make(), verbose=0)
        assert results.keys() == expected.keys()
        tf.nest.map_structure(assert_same, results, expected)


def test_refuses_what_the_preprocessing_does_not_take(kind, strategies):
    own = predictor(hub_shape.text_task(kind), strategies)
    with pytest.raises(
        ValueError, match=r"(?s)preprocessing of .*Text.* fails on float32"
    ):
        own.predict(np.ones((3, 4), "float32"), verbose=0)
    with pytest.raises(ValueError, match="list of 2 items that do not make one array"):
        own.predict([["a", "b"], ["c"]], verbose=0)
    task = hub_shape.text_task()
    task.preprocessor = lambda x: tf.strings.split(x)
    own = predictor(task, strategies)
    with pytest.raises(ValueError, match="RaggedTensor of shape .*Let it pad its rows"):
        own.predict(TEXTS, verbose=0)
    image_task = hub_shape.image_task()
    image_task.preprocessor = lambda x: tf.zeros((3, 6, 6, 3))
    own = predictor(image_task, strategies)
    with pytest.raises(
        ValueError, match=r"an array of shape \(3, 6, 6, 3\) for . rows"
    ):
        own.predict(IMAGES[:2], verbose=0)
    with pytest.raises(ValueError, match="has a preprocessor, which a parallel model"):
        mgpu.make_parallel(task, 1)


def test_errors_of_single_rows_keep_their_place(strategies):
    task = hub_shape.text_task()
    tokenize = task.preprocessor

    def strict(x):
        with tf.control_dependencies([tf.debugging.assert_none_equal(x, "bad row")]):
            return tokenize(tf.identity(x))

    task.preprocessor = strict
    rows = np.array([*TEXTS[:30], "bad row", *TEXTS])
    for engine in ("threads", "mirrored"):
        own = predictor(task, strategies, engine=engine)
        with pytest.raises(tf.errors.InvalidArgumentError) as caught:
            list(own.predict_iter(rows, batch_size=6))
        (note,) = re.findall(r"rows (\d+) to (\d+) ran", str(caught.value.__notes__))
        assert 30 in range(*map(int, note))


def test_the_digest_counts_what_preprocessing_goes_by(kind, strategies):
    def digest(change):
        task = hub_shape.text_task(kind)
        change(task)
        return models.digest(models.replicate(task, strategies[1]))

    same = digest(lambda task: None)
    assert digest(lambda task: task.predict(TEXTS, verbose=0)) == same
    assert digest(lambda task: setattr(task.preprocessor, "sequence_length", 4)) != same

    def other_words(task):
        words = [*hub_shape.WORDS[::-1]]
        if kind == "hub":
            words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
            task.preprocessor.tokenizer.set_vocabulary(words)
        else:
            task.preprocessor.tokenizer = hub_shape.Tokenizer(words)

    assert digest(other_words) != same


def test_a_method_on_top_of_a_task_is_refused(strategies):
    class Own(hub_shape.TextTask):
        def predict(self, x, **kwargs):
            return super().predict([t.lower() for t in x], **kwargs)

    task = Own(hub_shape.text_task().preprocessor)
    with pytest.raises(ValueError, match=r"\(Own\) has its own `predict`"):
        predictor(task, strategies)


def test_a_task_within_a_model_is_given_its_rows_as_they_are(kind, strategies):
    task = hub_shape.text_task(kind)
    rows = {k: np.asarray(v) for k, v in task.preprocessor(np.array(TEXTS)).items()}
    inputs = {
        k: keras.Input(v.shape[1:], dtype=v.dtype, name=k) for k, v in rows.items()
    }
    model = keras.Model(inputs, task(inputs) / 2)
    results = predictor(model, strategies).predict(rows, verbose=0)
    assert_same(results, task.predict(TEXTS, verbose=0) / 2)
