"""Two Ray nodes on one machine, one of which is killed in the middle of a run."""

import os
import pathlib
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parents[3]

CODE = """
import itertools
import warnings

import numpy as np
import ray
from ray.cluster_utils import Cluster

import keras_mgpu_strategy as mgpu
from tests.engines.ray import acting

cluster = Cluster(
    initialize_head=True,
    head_node_args={"num_cpus": 1, "include_dashboard": False},
)
# Before there is a second: this process ends with the node that it has joined.
ray.init(address=cluster.address, log_to_driver=False)
second = cluster.add_node(num_cpus=1)
cluster.wait_for_nodes()
processes = mgpu.RayOptions(ray_address=cluster.address)
predictor = mgpu.Predictor(acting.acting_model(), engine="ray", ray=processes)
assert predictor.num_replicas == 2, predictor.devices  # one for each machine
rows = np.full((600, 2), acting.SLEEPS, np.float32)
rows[:, 0] = np.arange(600)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    batches = predictor.predict_iter(rows, 8)
    results = list(itertools.islice(batches, 4))
    cluster.remove_node(second, allow_graceful=False)
    results += batches
assert [b.start for b in results[1:]] == [b.stop for b in results[:-1]]
joined = np.concatenate([batch.outputs for batch in results])
assert (joined == 2 * rows + 1).all()
print("all rows", *(f"{w.filename} {w.lineno} {w.message}" for w in caught), sep="\\n")

cluster.add_node(num_cpus=1)
cluster.wait_for_nodes()
before = predictor.devices
assert (predictor.predict(rows[:40], 8, verbose=0) == joined[:40]).all()
print("replaced", len(set(predictor.devices) - set(before)))

del predictor
ray.shutdown()
cluster.shutdown()
"""


def test_a_machine_that_dies_loses_no_row(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        cwd=ROOT,
        # Ray writes a token into the home folder, which the whole cluster shares.
        env=os.environ | {"PYTHONPATH": str(ROOT), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    lines = [line for line in done.stdout.splitlines() if line]
    assert lines[-3:-2] == ["all rows"], done.stdout
    number = 1 + CODE.partition("predict_iter")[0].count("\n")
    assert lines[-2].startswith(f"<string> {number} The process of a replica died")
    assert "could not be replaced" in lines[-2]
    assert lines[-1] == "replaced 1"
