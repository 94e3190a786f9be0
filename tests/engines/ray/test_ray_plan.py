"""How many processes to start, and what each gets: arithmetic, without Ray."""

import pytest

from keras_mgpu_strategy.engines.ray.plan import (
    ActorPlan,
    RayOptions,
    capacity,
    make_plan,
)


def machine(cpus, gpus=0, is_alive=True):
    resources = {"CPU": float(cpus), "memory": 1e9}
    return {
        "Alive": is_alive,
        "Resources": resources | ({"GPU": float(gpus)} if gpus else {}),
    }


LAPTOP, BOX, GPU_BOX = machine(2), machine(16), machine(32, gpus=4)

# Options, machines -> processes, GPUs and cores of each.
PLANS = [
    # Without GPUs: one on each machine, with all of its cores.
    ({}, [LAPTOP], (1, 0, 2)),
    ({}, [BOX, BOX], (2, 0, 16)),
    ({}, [BOX, LAPTOP], (2, 0, 8)),  # two with 8 fit on the large one
    ({"num_actors": 2}, [LAPTOP], (2, 0, 1)),
    ({"num_actors": 3}, [BOX], (3, 0, 5)),
    ({"num_actors": 16}, [BOX], (16, 0, 1)),
    ({"num_actors": 3}, [BOX, LAPTOP], (3, 0, 5)),
    ({"num_actors": 2, "cpus_per_actor": 1}, [BOX], (2, 0, 1)),
    ({"cpus_per_actor": 4}, [BOX], (1, 0, 4)),
    ({}, [BOX, machine(64, is_alive=False)], (1, 0, 16)),
    ({}, [BOX, machine(0)], (1, 0, 16)),  # a machine that only has a driver
    # With GPUs: one for each.
    ({}, [GPU_BOX], (4, 1, 1)),
    ({}, [GPU_BOX, BOX, GPU_BOX], (8, 1, 1)),
    ({"num_actors": 3}, [GPU_BOX], (3, 1, 1)),
    ({"cpus_per_actor": 8}, [GPU_BOX], (4, 1, 8)),
    ({"replicas_per_device": 2}, [GPU_BOX], (8, 0.5, 1)),
    ({"replicas_per_device": 3, "num_actors": 5}, [GPU_BOX], (5, 1 / 3, 1)),
]


@pytest.mark.parametrize(("options", "machines", "expected"), PLANS)
def test_plans(options, machines, expected):
    assert make_plan(RayOptions(**options), machines) == ActorPlan(*expected)


# Options, machines -> part of the message.
TOO_MUCH = [
    ({"num_actors": 3}, [LAPTOP], "3 processes of 1 CPU core each .* room for 2"),
    (
        {"num_actors": 3, "cpus_per_actor": 3},
        [machine(5), machine(4)],  # 9 cores, but no two times 3 on either
        "3 processes of 3 CPU cores each .* room for 2: Ray has 2 machine",
    ),
    ({"num_actors": 5}, [GPU_BOX], "5 processes of 1 GPU and 1 CPU core .* room for 4"),
    (
        {"replicas_per_device": 2, "num_actors": 9},
        [GPU_BOX],
        "9 processes of 0.5 GPU and 1 CPU core each .* room for 8",
    ),
    ({"cpus_per_actor": 9}, [GPU_BOX], "4 processes of 1 GPU and 9 .* room for 3"),
    ({"replicas_per_device": 2}, [BOX], "Ray knows of no GPU to share"),
    ({}, [machine(0)], "room for 0: Ray has 0 machine.* with GPUs or CPU cores. Ask"),
]


@pytest.mark.parametrize(("options", "machines", "message"), TOO_MUCH)
def test_more_than_there_is(options, machines, message):
    with pytest.raises(ValueError, match=message):
        make_plan(RayOptions(**options), machines)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"num_actors": 0}, ValueError, "num_actors=0. Expected an integer"),
        ({"cpus_per_actor": -1}, ValueError, "cpus_per_actor=-1"),
        ({"replicas_per_device": None}, TypeError, "replicas_per_device=None"),
        ({"num_actors": 1.5}, TypeError, "num_actors=1.5"),
        ({"num_actors": True}, TypeError, "num_actors=True"),
    ],
)
def test_numbers_that_make_no_sense(options, error, message):
    with pytest.raises(error, match=message):
        RayOptions(**options)


def test_thirds_fill_a_gpu_although_ray_rounds_them():
    plan = ActorPlan(3, 1 / 3, 1)
    assert capacity([machine(8, gpus=1)], plan) == 3
    assert plan.all_fit({"GPU": 1.0, "CPU": 3.0})
    assert plan.fits({"GPU": 0.3333, "CPU": 1.0})
    assert not plan.fits({"CPU": 8.0})


def test_the_capacity_falls_with_the_machines():
    plan = ActorPlan(4, 0, 8)
    assert capacity([BOX, BOX], plan) == 4
    assert capacity([BOX, machine(16, is_alive=False)], plan) == 2
