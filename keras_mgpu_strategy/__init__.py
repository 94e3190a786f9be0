"""Exact, ordered Keras predictions on every device of a machine.

    import keras_mgpu_strategy as mgpu
    model = mgpu.load("model.keras")  # on every GPU; mgpu.scope() chooses devices
    probabilities = model.predict_proba(x)  # arrays, frames, generators, files, ...

`predict_to` writes results of any size to files. After a run, `model.report` says where
its time went. From a shell, use the command `mgpu`.
"""

# Names are imported on first use, so that the command line can answer `--help` at once
# and can set up TensorFlow's environment before TensorFlow loads.
import importlib
import sys
from typing import TYPE_CHECKING, Any

from keras_mgpu_strategy.system import fork_guard  # noqa: F401 - sees forks from now on
from keras_mgpu_strategy.version import __version__

if TYPE_CHECKING:
    from keras_mgpu_strategy import files
    from keras_mgpu_strategy.devices.scope import scope
    from keras_mgpu_strategy.drop_in import predict_proba
    from keras_mgpu_strategy.engines.ray.plan import RayOptions
    from keras_mgpu_strategy.models.views import View
    from keras_mgpu_strategy.parallel import make_parallel
    from keras_mgpu_strategy.predictor import Predictor, load
    from keras_mgpu_strategy.report import Report
    from keras_mgpu_strategy.sources.pad import Pad
    from keras_mgpu_strategy.types import HostBatch

__all__ = [
    "HostBatch",
    "Pad",
    "Predictor",
    "RayOptions",
    "Report",
    "View",
    "__version__",
    "files",
    "load",
    "make_parallel",
    "predict_proba",
    "scope",
]

_MODULES = {
    "HostBatch": "keras_mgpu_strategy.types",
    "Pad": "keras_mgpu_strategy.sources.pad",
    "Predictor": "keras_mgpu_strategy.predictor",
    "RayOptions": "keras_mgpu_strategy.engines.ray.plan",
    "Report": "keras_mgpu_strategy.report",
    "View": "keras_mgpu_strategy.models.views",
    "files": "keras_mgpu_strategy.files",
    "load": "keras_mgpu_strategy.predictor",
    "make_parallel": "keras_mgpu_strategy.parallel",
    "predict_proba": "keras_mgpu_strategy.drop_in",
    "scope": "keras_mgpu_strategy.devices.scope",
}


def __getattr__(name: str) -> Any:
    """Imports the module of a public name when the name is first used."""
    if name not in _MODULES:
        text = f"module {__name__!r} has no attribute {name!r}"
        # With these, Python names the nearest one.
        raise AttributeError(text, name=name, obj=sys.modules[__name__])
    module = importlib.import_module(_MODULES[name])
    value = getattr(module, name, module)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
