"""Stand-ins for KerasHub's classes if it is not installed, and tasks of both.

A text task and an image task with random weights, as small as KerasHub allows.
"""

import importlib.util

import keras
import numpy as np
import tensorflow as tf

HAS_HUB = importlib.util.find_spec("keras_hub") is not None
WORDS = ["the", "movie", "was", "great", "bad", "plot", "a"]


class PreprocessingLayer(keras.layers.Layer):
    """Takes inputs that are not tensors; built when first called."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self._convert_input_args = False
        self._allow_non_tensor_positional_args = True


class PipelineModel(keras.Model):
    """`predict` and `predict_on_batch` preprocess, as in KerasHub 0.16 to 0.32."""

    def preprocess_samples(self, x, y=None, sample_weight=None):
        return keras.utils.pack_x_y_sample_weight(x, y, sample_weight)

    def predict(self, x=None, batch_size=None, **kwargs):
        if not isinstance(x, tf.data.Dataset):
            packed = keras.utils.pack_x_y_sample_weight(x)
            x = tf.data.Dataset.from_tensor_slices(packed).batch(batch_size or 32)
        return super().predict(x.map(self.preprocess_samples), **kwargs)

    def predict_on_batch(self, x, **kwargs):
        x, _, _ = keras.utils.unpack_x_y_sample_weight(self.preprocess_samples(x))
        return super().predict_on_batch(x, **kwargs)


class Task(PipelineModel):
    """A model with a preprocessor."""

    @property
    def preprocessor(self):
        return getattr(self, "_preprocessor", None)

    @preprocessor.setter
    def preprocessor(self, value):
        self._preprocessor = value

    def compile(self, optimizer="adam", **kwargs):
        super().compile(optimizer, **kwargs)

    def preprocess_samples(self, x, y=None, sample_weight=None):
        if self.preprocessor is None:
            return keras.utils.pack_x_y_sample_weight(x, y, sample_weight)
        if isinstance(self.preprocessor, PreprocessingLayer):
            return self.preprocessor(x, y=y, sample_weight=sample_weight)
        x = self.preprocessor(x)
        return keras.utils.pack_x_y_sample_weight(x, y, sample_weight)


class Tokenizer(PreprocessingLayer):
    """Maps words to numbers; the words are not in its configuration."""

    def __init__(self, vocabulary=None, **kwargs):
        super().__init__(**kwargs)
        self.table = keras.layers.StringLookup(vocabulary=vocabulary)

    def call(self, x):
        return self.table(tf.strings.split(x))

    def save_assets(self, folder):
        with open(f"{folder}/vocabulary.txt", "w") as file:
            file.write("\n".join(self.table.get_vocabulary()))


class TextPreprocessor(PreprocessingLayer):
    """Maps texts, or tuples of them, to a dict of numbers of one length."""

    def __init__(self, tokenizer=None, sequence_length=8, **kwargs):
        super().__init__(**kwargs)
        self.tokenizer = tokenizer
        self.sequence_length = sequence_length

    def call(self, x, y=None, sample_weight=None):
        parts = x if isinstance(x, tuple) else (x,)
        words = tf.concat([self.tokenizer(part) for part in parts], axis=1)
        ids = words.to_tensor(shape=(None, self.sequence_length))
        x = {"token_ids": tf.cast(ids, "int32"), "padding_mask": ids != 0}
        return keras.utils.pack_x_y_sample_weight(x, y, sample_weight)

    def get_config(self):
        config = {"tokenizer": self.tokenizer, "sequence_length": self.sequence_length}
        return {**super().get_config(), **config}


class ImagePreprocessor(PreprocessingLayer):
    """Maps images of any size to small ones with values up to 1."""

    def call(self, x, y=None, sample_weight=None):
        x = tf.image.resize(tf.cast(x, "float32"), (6, 6)) / 255
        return keras.utils.pack_x_y_sample_weight(x, y, sample_weight)


class TextTask(Task):
    """Maps texts to three probabilities."""

    def __init__(self, preprocessor=None, **kwargs):
        ids = keras.Input((None,), dtype="int32", name="token_ids")
        mask = keras.Input((None,), dtype="bool", name="padding_mask")
        seen = keras.layers.Embedding(len(WORDS) + 2, 4)(ids)
        pooled = keras.layers.GlobalAveragePooling1D()(seen, mask=mask)
        outputs = keras.layers.Dense(3, activation="softmax")(pooled)
        inputs = {"token_ids": ids, "padding_mask": mask}
        super().__init__(inputs, outputs, **kwargs)
        self.preprocessor = preprocessor
        self.compile()

    def get_config(self):
        return {"name": self.name, "preprocessor": self.preprocessor}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


class ImageTask(Task):
    """Maps images to three probabilities."""

    def __init__(self, preprocessor=None, **kwargs):
        inputs = keras.Input((6, 6, 3))
        seen = keras.layers.Conv2D(4, 3)(inputs)
        pooled = keras.layers.GlobalAveragePooling2D()(seen)
        outputs = keras.layers.Dense(3, activation="softmax")(pooled)
        super().__init__(inputs, outputs, **kwargs)
        self.preprocessor = preprocessor
        self.compile()

    def get_config(self):
        return {"name": self.name, "preprocessor": self.preprocessor}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


for _cls in (PreprocessingLayer, PipelineModel, Task):
    _cls.__module__ = f"keras_hub.src.{_cls.__name__}"


def text_task(kind="shape"):
    """A classifier of texts of `WORDS`, from KerasHub or its stand-in."""
    if kind == "shape":
        return _with_weights(TextTask(TextPreprocessor(Tokenizer(WORDS))))
    hub = importlib.import_module("keras_hub").models
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    backbone = hub.BertBackbone(
        vocabulary_size=len(words),
        num_layers=1,
        num_heads=2,
        hidden_dim=8,
        intermediate_dim=16,
        max_sequence_length=8,
    )
    preprocessor = hub.BertTextClassifierPreprocessor(
        tokenizer=hub.BertTokenizer(vocabulary=words), sequence_length=8
    )
    task = hub.BertTextClassifier(
        backbone=backbone,
        num_classes=3,
        preprocessor=preprocessor,
        activation="softmax",
    )
    return _with_weights(task)


def image_task(kind="shape"):
    """A classifier of images of any size, from KerasHub or its stand-in."""
    if kind == "shape":
        return _with_weights(ImageTask(ImagePreprocessor()))
    package = importlib.import_module("keras_hub")
    backbone = package.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[3],
        stackwise_num_filters=[64],
        stackwise_num_blocks=[1],
        stackwise_num_strides=[1],
        block_type="basic_block",
        image_shape=(16, 16, 3),
    )
    converter = package.layers.ResNetImageConverter(image_size=(16, 16), scale=1 / 255)
    preprocessor = package.models.ResNetImageClassifierPreprocessor(converter)
    task = package.models.ResNetImageClassifier(
        backbone=backbone,
        num_classes=3,
        preprocessor=preprocessor,
        activation="softmax",
    )
    return _with_weights(task)


def _with_weights(task):
    random = np.random.default_rng(0)
    for variable in task.weights:
        variable.assign(np.abs(random.normal(size=variable.shape)) / 3)
    return task


def texts(num_rows):
    """Sentences of 1 to 12 words."""
    random = np.random.default_rng(1)
    counts = random.integers(1, 13, num_rows)
    return [" ".join(random.choice([*WORDS, "???"], count)) for count in counts]


def images(num_rows):
    """Images of 20 x 24 pixels."""
    shape = (num_rows, 20, 24, 3)
    return np.random.default_rng(2).integers(0, 256, shape, dtype=np.uint8)
