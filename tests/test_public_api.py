"""What users call: names, order and defaults of all arguments, and their types."""

import inspect

import pytest

import keras_mgpu_strategy as mgpu

_OPTIONS = (
    "*, engine='threads', compile='auto', jit_compile='auto', in_flight='auto', "
    "profile=None, precision=None, outputs=None, output_dtype=None, combine=None, "
    "views=None, tuning=None, ray=None"
)
_PREDICT = "x, batch_size=None, verbose='auto', steps=None, callbacks=None"
SIGNATURES = {
    "scope": "devices=None, *, replicas_per_device=1",
    "load": f"path, *, custom_objects=None, safe_mode=True, {_OPTIONS[3:]}",
    "predict_proba": (
        f"model, {_PREDICT}, *, from_logits=False, strict=False, compile='auto', "
        "jit_compile='auto', pad=None"
    ),
    "make_parallel": "model, gpu_count=None, *, gpus=None, devices=None",
    "Predictor": f"model, {_OPTIONS}",
    "Predictor.predict": f"self, {_PREDICT}, *, pad=None",
    "Predictor.predict_proba": (
        f"self, {_PREDICT}, *, from_logits=False, strict=False, pad=None"
    ),
    "Predictor.predict_classes": f"self, {_PREDICT}, *, from_logits=False, pad=None",
    "Predictor.predict_top_k": (
        "self, x, k=5, batch_size=None, verbose='auto', steps=None, callbacks=None, *, "
        "from_logits=False, pad=None"
    ),
    "Predictor.predict_on_batch": "self, x, *, pad=None",
    "Predictor.predict_iter": "self, x, batch_size=None, steps=None, *, pad=None",
    "Predictor.evaluate": (
        "self, x, y=None, batch_size=None, verbose='auto', sample_weight=None, "
        "steps=None, callbacks=None, return_dict=False, *, pad=None"
    ),
    "Predictor.predict_batches": "self, batches, *, pad=None",
    "Predictor.predict_to": (
        "self, path, x, batch_size=None, verbose='auto', steps=None, *, "
        "method='predict_proba', from_logits=False, strict=False, k=None, keep=None, "
        "labels=None, metrics=None, resume=False, overwrite=False, shard=None, "
        "on_nonfinite='warn', stop_on=(), pad=None"
    ),
    "Pad": (
        "value=0, lengths='auto', max_tokens=None, side='right', truncate=False, "
        "unmasked=False, window=16384"
    ),
    "View": "forward, inverse=None",
    "Report.to_dict": "self",
    "Report.plot": "self, ax=None",
    "RayOptions": (
        "num_actors=None, replicas_per_device=1, cpus_per_actor=None, ray_address=None"
    ),
}


def found(name):
    value = mgpu
    for part in name.split("."):
        value = getattr(value, part)
    return inspect.signature(value)


@pytest.mark.parametrize("name", SIGNATURES)
def test_signatures_are_these(name):
    signature = found(name)
    plain = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
    bare = signature.replace(parameters=plain, return_annotation=signature.empty)
    assert str(bare) == f"({SIGNATURES[name]})"


@pytest.mark.parametrize("name", SIGNATURES)
def test_every_argument_has_a_type(name):
    given = [p for p in found(name).parameters.values() if p.name != "self"]
    assert all(p.annotation is not p.empty for p in given)
    assert not [p for p in given if p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]


def test_every_public_method_of_a_predictor_is_listed():
    methods = {
        name
        for name, value in inspect.getmembers(mgpu.Predictor, inspect.isfunction)
        if not name.startswith("_")
    }
    assert {f"Predictor.{name}" for name in methods} <= set(SIGNATURES)


def test_python_names_the_nearest_of_an_unknown_name():
    with pytest.raises(AttributeError, match="has no attribute 'predict_probs'") as got:
        _ = mgpu.predict_probs
    # Python uses these to find the name when it shows the error.
    assert (got.value.name, got.value.obj) == ("predict_probs", mgpu)
