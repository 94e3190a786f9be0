"""Four virtual CPU devices for every test, made before TensorFlow starts."""

import os
import re
import signal

import pytest

# With a GPU, results would depend on the machine. It is hidden before TensorFlow
# starts: Keras compiles with XLA if there is one, even if TensorFlow may not use it.
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"

import tensorflow as tf
from xdist.scheduler import LoadScopeScheduling

NUM_DEVICES = 4
SLOW = re.compile(
    r"""
    /benchmark/test_benchmark_(command|measure) | /benchmarks/ | /packaging/ | /peers/
    | /cli/test_cli_(own_code|stopping|streams) | cli.py::test_ray_gives
    | _padding.py::test_lists_in
    | test_views_of_one_and_of_several
    | /conformance/test_sparse_inputs | test_threads_engine\[.*-[124]\]
    | test_the_same_bits_on_any.*\[(attention|conv_bn|lstm)
    | test_ensembles(\[(?!dense) | _give_the_same_bits)
    | test_ensemble.py::test_(formats|tasks|members_draw|losses|sparse)
    | test_best_classes_and_cast_floats\[.*[23]-(mirrored|threads)\]
    | /engines/(ray/|test_out_of_memory) | /gpu_rig/ | /inputs/test_optional_inputs
    | /formats/test_files_memory | /lifetime/ | /properties/ | test_ragged_memory
    | /models/test_(compile_settings|differing_copies|graphs|precision)
    | /models/test_padding.*tf_keras | test_padded_.*(tf_keras|must_know_the_length)
    | /conformance/test_padded.py::test_(rows.*\[(?!lstm)|the_same_bits|options)
    | /conformance/test_matrix.py::test_evaluation\[(?!dense-threads)
    | test_evaluate.*(device.*(tf_keras|one_hot|loss_alone|two_in_a_dict)|masked.*tf_k)
    | /notebooks/test_(bar|interrupts)
    | /parallel/test_(make_parallel|parallel_training) | /to_file/test_predict_to_faults
    | /to_file/test_predict_to_padded.*(in_bytes|mirrored|-[13]\])
    | run_metrics.py::test_a_run_killed | \[ray\.md\]
    | test_(interactive|kill_and_resume|random_layers|site|tasks|whole_elements)\.py
    | test_predict_to_steps\.py | test_learned\.py::test_a_long_run
    | /compute/test_freezing.py::test_(models_of|a_saved_model|weights_that.*recurrent)
    | /runs/test_padded_.*(ensembles|batches_shrink|with.*(set|ts)\]|tokens\[li)
    | test_environments\.py | test_tracebacks\.py::test_(only|frames|in_a_kernel)
    """,
    re.VERBOSE,
)
"""Tests that only `python -m pytest -m slow` runs."""


def pytest_configure() -> None:
    # Background jobs of a shell ignore Ctrl-C, and those of `nohup` SIGHUP; their
    # children inherit this.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    # One thread per device, as a replica has one accelerator. Otherwise four replicas
    # would share a pool of threads, and their order of work would mean nothing.
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0],
        [tf.config.LogicalDeviceConfiguration()] * NUM_DEVICES,
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if SLOW.search(item.nodeid):
            item.add_marker(pytest.mark.slow)


class SharedInOneWorker(LoadScopeScheduling):
    """Hands out tests one by one, except those that share what one worker starts.

    That is Ray, and the plugin that simulates GPUs, which takes a while to build.

    The mark `xdist_group` is meant for this, but pytest-xdist 3.8 under pytest 9.2
    ignores it.
    """

    def _split_scope(self, nodeid: str) -> str:
        if re.search(r"engines/ray/|\[ray\.md\]|tracebacks.*(\[ray\]|process)", nodeid):
            return "ray"
        return "gpu_rig" if "gpu_rig/" in nodeid else nodeid


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    return SharedInOneWorker(config, log)


@pytest.fixture(scope="session")
def strategies() -> dict[int, tf.distribute.MirroredStrategy]:
    """Number of replicas R -> a strategy over the first R devices."""
    return {
        num_replicas: tf.distribute.MirroredStrategy(
            [f"CPU:{index}" for index in range(num_replicas)]
        )
        for num_replicas in range(1, NUM_DEVICES + 1)
    }
