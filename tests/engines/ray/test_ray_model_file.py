"""What a process of Ray receives of a model, tested without Ray."""

import numpy as np

from keras_mgpu_strategy.engines.ray import model_file
from tests import helpers


def test_a_folder_of_links_is_sent_whole(tmp_path):
    """As in caches of models: a name, a version, and content elsewhere."""
    model = helpers.dense_model()
    model.export(tmp_path / "content", verbose=False)
    (tmp_path / "version").mkdir()
    for path in (tmp_path / "content").iterdir():
        (tmp_path / "version" / path.name).symlink_to(f"../content/{path.name}")
    (tmp_path / "current").symlink_to("version")
    packed = model_file.from_path(tmp_path / "current", None, safe_mode=True)
    read = packed.read(None).model.variables
    for variable, expected in zip(read, model.variables, strict=True):
        np.testing.assert_array_equal(variable.numpy(), expected.numpy())
