"""Safe mode: no code from a model file runs, whichever library would load it."""

import json
import sys

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import keras_mgpu_strategy as mgpu
from keras_mgpu_strategy.engines.ray import model_file
from keras_mgpu_strategy.models import read
from keras_mgpu_strategy.models.files.safety import foreign_name, unsafe_parts
from tests.security import hostile

pytestmark = pytest.mark.filterwarnings(
    "ignore:You are saving your model as an HDF5 file",
    "ignore:The object being serialized includes a `lambda`",
)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return hostile.save_model(tmp_path_factory.mktemp("plain") / "plain.keras")


@pytest.fixture(scope="module")
def with_lambda(tmp_path_factory):
    """Kind -> a file with a Lambda layer, by Keras 3 and by Keras 2."""
    folder = tmp_path_factory.mktemp("lambda")
    found = {}
    for library in (keras, tf_keras):
        double = library.layers.Lambda(lambda x: x * 2, name="evil")
        model = library.Sequential([library.Input((4,)), double])
        for suffix in (".keras", ".h5"):
            found[library.__name__, suffix] = folder / f"{library.__name__}{suffix}"
            model.save(found[library.__name__, suffix])
    return found


@pytest.fixture
def module_with_a_trap(tmp_path, monkeypatch):
    """A module that leaves a mark when it is imported."""
    marker = tmp_path / "imported"
    folder = tmp_path / "modules"
    folder.mkdir()
    source = f"import os\nos.mkdir({str(marker)!r})\ndef trap(x):\n    return x\n"
    (folder / "module_with_a_trap.py").write_text(source)
    monkeypatch.syspath_prepend(folder)
    yield marker
    sys.modules.pop("module_with_a_trap", None)


SUFFIXES = [(name, end) for name in ("keras", "tf_keras") for end in (".keras", ".h5")]


@pytest.mark.parametrize("kind", SUFFIXES)
def test_lambda_layers_are_refused_wherever_models_are_loaded(kind, with_lambda):
    path = with_lambda[kind]
    message = rf"{path.name}.*Python code in the Lambda layers \['evil'\].*safe_mode=F"
    with mgpu.scope("cpu:0"), pytest.raises(ValueError, match=message):
        mgpu.load(path)
    # What a Ray process is sent, and does with it.
    packed = model_file.from_path(path, None, safe_mode=True)
    with pytest.raises(ValueError, match=message):
        packed.read(None)


def test_models_in_memory_with_lambdas_do_not_turn_safe_mode_off(with_lambda):
    double = keras.layers.Lambda(lambda x: x * 2)
    model = keras.Sequential([keras.Input((4,)), double])
    with mgpu.scope("cpu:0,cpu:1"):
        predictor = mgpu.Predictor(model)  # rebuilt: it is the program's own code
        rows = np.ones((3, 4), np.float32)
        np.testing.assert_array_equal(predictor.predict(rows, verbose=0), rows * 2)
        with pytest.raises(ValueError, match="safe_mode=False"):
            mgpu.load(with_lambda["keras", ".keras"])
    with pytest.raises(ValueError, match="safe_mode=False"):
        keras.models.load_model(with_lambda["keras", ".keras"])


def test_bytecode_without_its_mark_is_refused(with_lambda, tmp_path, strategies):
    """Keras 3 takes a list for Keras 2 bytecode, whatever type it claims to be."""
    path = tmp_path / "model.h5"
    path.write_bytes(with_lambda["tf_keras", ".h5"].read_bytes())
    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        for layer in config["config"]["layers"]:
            layer["config"].pop("function_type", None)
        file.attrs["model_config"] = json.dumps(config)
    with pytest.raises(ValueError, match=r"Lambda layers \['evil'\].*safe_mode=False"):
        read(path, strategies[1])


FOREIGN = [
    hostile.lambda_layer(hostile.function("os", "system")),
    hostile.lambda_layer(hostile.function("builtins", "exec")),
    hostile.lambda_layer(hostile.function("keras.utils", "get_file")),
    hostile.lambda_layer(
        hostile.function("keras.config", "enable_unsafe_deserialization")
    ),
    hostile.lambda_layer(hostile.function("keras.src.utils.file_utils", "get_file")),
    hostile.lambda_layer(hostile.function("keras.saving", "load_model")),
    hostile.lambda_layer(hostile.layer("get_file", "keras.utils")),
    hostile.lambda_layer("relu", output_shape=hostile.function("os", "system")),
    hostile.layer("Popen", "subprocess"),
    hostile.layer("Dense", "module_with_a_trap"),
    hostile.layer("TFOpLambda", function="io.write_file"),
    hostile.layer("TFOpLambda", function="raw_ops.WriteFile"),
    hostile.layer("TFOpLambda", function="print"),
    hostile.layer("TFOpLambda", function="load_op_library"),
    hostile.layer("TFOpLambda", function="compat.v1.write_file"),
    hostile.layer("TFOpLambda", function="keras.utils.get_file"),
    hostile.layer("ClassMethod", cls_symbol="io.gfile.GFile"),
]
FILES = [
    hostile.layer("TFSMLayer", filepath="/somewhere"),
    hostile.layer("TorchModuleWrapper"),
    hostile.layer("StringLookup", vocabulary="/etc/hostname"),
    hostile.layer("TextVectorization", vocabulary="/etc/hostname"),
]


@pytest.mark.parametrize("evil", FOREIGN)
def test_names_that_are_not_parts_of_models_are_refused(
    evil, plain, tmp_path, strategies
):
    path = hostile.with_layer(plain, tmp_path / "evil.keras", evil)
    message = "evil.keras' refers to .*custom_objects.*Pass `safe_mode=False`"
    with pytest.raises(ValueError, match=message):
        read(path, strategies[1])


@pytest.mark.parametrize("evil", FILES)
def test_layers_that_load_other_files_are_refused(evil, plain, tmp_path, strategies):
    path = hostile.with_layer(plain, tmp_path / "evil.keras", evil)
    message = f"evil.keras' would read other files.*{evil['class_name']}.*safe_mode=Fal"
    with pytest.raises(ValueError, match=message):
        read(path, strategies[1])


def test_no_module_is_imported_that_a_file_names(
    with_lambda, tmp_path, strategies, module_with_a_trap
):
    whole, path = with_lambda["tf_keras", ".keras"], tmp_path / "evil.keras"
    config = hostile.config_of(whole)
    called = hostile.function("module_with_a_trap", "trap")
    evil = {"function": called, "function_type": "function", "module": None}
    config["config"]["layers"][-1]["config"].update(evil)
    hostile.with_members(whole, path, {"config.json": json.dumps(config)})
    with pytest.raises(ValueError, match=r"refers to \['module_with_a_trap.trap'\]"):
        read(path, strategies[1])
    assert not module_with_a_trap.exists()
    read(path, strategies[1], safe_mode=False)
    assert module_with_a_trap.exists()  # by tf_keras: the file is what it seems


def test_custom_objects_may_be_named(plain, tmp_path, strategies):
    class Own(keras.layers.Layer):
        def call(self, inputs):
            return inputs + 1

    path = hostile.with_layer(
        plain, tmp_path / "own.keras", hostile.layer("Own", "own")
    )
    with pytest.raises(ValueError, match=r"custom_objects=\{'Own': Own\}"):
        read(path, strategies[1])
    model = read(path, strategies[1], custom_objects={"Own": Own}).model
    assert isinstance(model.layers[-1], Own)


def test_compile_settings_that_are_not_safe_are_left_out(
    plain, tmp_path, strategies, module_with_a_trap
):
    settings = {
        "optimizer": "adam",
        "loss": hostile.layer("Loss", "module_with_a_trap"),
    }
    path = tmp_path / "model.keras"
    config = {**hostile.config_of(plain), "compile_config": settings}
    hostile.with_members(plain, path, {"config.json": json.dumps(config)})
    with pytest.warns(UserWarning, match="compile settings.*module_with_a_trap.Loss"):
        replicated = read(path, strategies[1])
    assert not replicated.model.compiled and not module_with_a_trap.exists()


ALLOWED = [
    hostile.function("builtins", "relu"),
    hostile.function("keras.activations", "gelu"),
    hostile.function("keras.ops", "abs"),
    hostile.layer("Dense"),
    hostile.layer("Mean", "keras.src.ops.numpy"),
    hostile.layer("Dense", None),
    hostile.layer("TFOpLambda", function="math.reduce_mean"),
    hostile.layer("TFOpLambda", function="nn.relu"),
    hostile.layer("TFOpLambda", function="concat"),
    hostile.layer("TFOpLambda", function="compat.v1.nn.conv2d"),
    hostile.layer("TFOpLambda", function="keras.backend.mean"),
    hostile.layer("SlicingOpLambda", function="__operators__.getitem"),
    hostile.layer("ClassMethod", cls_symbol="RaggedTensor"),
    hostile.layer("StringLookup", vocabulary=["a", "b"]),
    {"class_name": "__typespec__", "spec_name": "TensorSpec", "registered_name": None}
    | {"module": "tensorflow.python.framework.tensor", "config": []},
    {"class_name": "Dense", "config": {}},
    {"module": "os", "name": "no object"},
]


@pytest.mark.parametrize("config", ALLOWED)
def test_parts_of_models_are_not_refused(config):
    assert unsafe_parts({"config": [config]}, None) is None
    assert foreign_name(config) is None


def test_a_deep_configuration_is_searched():
    evil = hostile.function("os", "system")
    for _ in range(10_000):
        evil = {"config": [evil]}
    assert "os.system" in (unsafe_parts(evil, None) or "")


@pytest.mark.parametrize(
    "config",
    [b"[" * 100_000, b"\xff\xfe", b"[]", b"null", b'{"a": ', b'{"a":' * 5000]
    + [b'{"class_name": ["x"], "config": 3}'],
)
def test_a_configuration_that_is_not_one_is_an_error(
    config, plain, tmp_path, strategies
):
    path = hostile.with_members(plain, tmp_path / "x.keras", {"config.json": config})
    with pytest.raises(ValueError, match="x.keras"):
        read(path, strategies[1])


def test_the_graph_of_a_saved_model_does_what_it_wants(tmp_path, strategies):
    """As SECURITY.md says, safe mode does not cover graphs."""
    marker = str(tmp_path / "written")

    class Evil(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, 4])])
        def serve(self, x):
            tf.io.write_file(marker, "by the model")
            return x

    evil = Evil()
    tf.saved_model.save(evil, str(tmp_path / "m"), signatures=evil.serve)
    replicated = read(tmp_path / "m", strategies[1], safe_mode=True)
    replicated.call(tf.zeros((1, 4)))
    assert tf.io.gfile.exists(marker)
