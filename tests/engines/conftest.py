"""Each test of this folder runs on every engine."""

import numpy as np
import pytest

from keras_mgpu_strategy import models
from keras_mgpu_strategy.compute import heads
from keras_mgpu_strategy.engines.local import LocalBackend
from keras_mgpu_strategy.engines.options import Options
from keras_mgpu_strategy.runs.run import Runner
from tests import helpers


@pytest.fixture(scope="module", params=["threads", "mirrored"])
def engine_of(request):
    """Makes the engine of a model, as the Predictor does."""

    def make(model, strategy):
        replicated = models.replicate(model, strategy)
        runner = Runner(LocalBackend(replicated, Options(request.param)))
        example = np.zeros((0, *model.input_shape[1:]), np.float32)
        batch_size = helpers.BATCH * strategy.num_replicas_in_sync
        return runner.prepare(example, heads.identity, batch_size=batch_size).engine

    return make


@pytest.fixture(scope="module")
def engine(engine_of, strategies):
    """Used by many tests, which shows that a run leaves nothing behind."""
    return engine_of(helpers.doubling_model(helpers.OnlyBatches()), strategies[2])
