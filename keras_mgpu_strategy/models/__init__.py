"""Models on every replica: read from disk, or rebuilt from a model in memory."""

# ruff: noqa: F401 - these are the names that other rooms use

from keras_mgpu_strategy.models.aside import Aside, put_aside
from keras_mgpu_strategy.models.attributes import attributes_in_process
from keras_mgpu_strategy.models.compile_settings import compiled_for_xla
from keras_mgpu_strategy.models.criteria import (
    Criteria,
    Examiner,
    make_judge,
    output_names_of,
)
from keras_mgpu_strategy.models.custom_objects import custom_objects_of
from keras_mgpu_strategy.models.digest import digest
from keras_mgpu_strategy.models.effects import beyond_weights, nodes_of, only_reads
from keras_mgpu_strategy.models.ensemble import ensemble
from keras_mgpu_strategy.models.files.checks import kind_of
from keras_mgpu_strategy.models.following import Follower, Snapshot
from keras_mgpu_strategy.models.libraries import float_dtype_of, layers_of
from keras_mgpu_strategy.models.masks import masks_of
from keras_mgpu_strategy.models.output_paths import chains_of
from keras_mgpu_strategy.models.overrides import (
    check_on_object,
    check_predict,
    is_overridden,
    preprocess_of,
)
from keras_mgpu_strategy.models.pad_trial import padding_of, try_padded
from keras_mgpu_strategy.models.read import read
from keras_mgpu_strategy.models.replicated import Preprocessing, ReplicatedModel
from keras_mgpu_strategy.models.replicating import build, replicate
from keras_mgpu_strategy.models.stand_ins import (
    Draws,
    PinnedValues,
    drawing,
    first_run,
    is_seed,
    set_apart,
)
from keras_mgpu_strategy.models.token_counts import PaddedOutputs, TokenCounts
from keras_mgpu_strategy.models.variables import (
    copies_of,
    outside_scopes,
    strategy_of,
    variables_of,
)
from keras_mgpu_strategy.models.views import View, check_views, described
from keras_mgpu_strategy.models.xla import step_choices
