"""Which jobs follow from options, and which options are refused."""

import pytest
from absl import flags
from suite import catalog, command, models
from suite.contenders import CONTENDERS
from suite.jobs import Options, series

from keras_mgpu_strategy.benchmark.options import BUILT_IN


def jobs_of(options, found=None):
    return [
        job
        for one in series(options)
        for replicas in options.replicas
        for job in one.jobs(replicas, found)
    ]


def test_names_stand_for_what_there_is():
    assert set(catalog.MODELS) == {*models.BUILDERS, BUILT_IN}
    assert set(catalog.CONTENDERS) == set(CONTENDERS)
    assert set(catalog.CASES) == set(catalog.CASE_CONTENDERS)


def test_default_models_run_at_their_own_batches():
    jobs = jobs_of(Options(replicas=(2,)))
    assert [(job.model, job.batch) for job in jobs] == [
        ("tiny", 1024),
        ("mlp", 32),
        ("mlp", 1024),
        ("cnn", 512),
        ("resnet50", 8),
    ]


def test_a_batch_applies_to_all_models():
    jobs = jobs_of(Options(replicas=(2,), models=("mlp", "cnn"), batch=4))
    assert [job.batch for job in jobs] == [4, 4]


def test_rows_that_are_found_suit_every_number_of_replicas():
    jobs = jobs_of(Options(replicas=(2, 3), models=("tiny",), batch=4))
    assert [job.row_multiple for job in jobs] == [24, 24]


@pytest.mark.parametrize(
    ("rows", "weak", "found", "expected"),
    [
        (100, False, None, [100, 100]),
        (100, True, None, [200, 400]),
        (None, False, (2, 48), [48, 48]),
        (None, True, (2, 48), [48, 96]),
        (None, False, None, [None, None]),
    ],
)
def test_strong_and_weak_scaling(rows, weak, found, expected):
    options = Options(replicas=(2, 4), models=("tiny",), rows=rows, weak=weak)
    assert [job.rows for job in jobs_of(options, found)] == expected


def test_memory_is_measured_one_contender_a_process():
    jobs = jobs_of(Options(case="memory", replicas=(2,)))
    assert [job.contenders for job in jobs] == [("mgpu_threads",), ("mgpu_mirrored",)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"case": "speed"}, "case='speed'. Expected one of: throughput, "),
        ({"contenders": ("keres",)}, "contenders='keres'. Expected one of: keras, "),
        (
            {"case": "memory", "contenders": ("keras",)},
            "contenders='keras'. Expected one of: mgpu_threads, mgpu_mirrored.",
        ),
        ({"models": ("vgg",)}, "model='vgg' is neither a model of the suite"),
        ({"models": ("none.keras",)}, "model='none.keras' is neither"),
        ({"replicas": ()}, "replicas is empty"),
        ({"replicas": (2, 0)}, "replicas=0. Expected 1 or more."),
        ({"batch": 0}, "batch=0. Expected 1 or more."),
        ({"rows": 0}, "rows=0. Expected 1 or more."),
        ({"repetitions": 0}, "repetitions=0. Expected 1 or more."),
        ({"seconds": 0.0}, "seconds=0.0. Expected more than 0."),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError) as raised:
        Options(**options)
    assert message in str(raised.value)


def parse(*words):
    flag_values = flags.FlagValues()
    command.define_flags(flag_values)
    flag_values(["benchmark", *words])
    return flag_values


def test_flags_become_options():
    options = command.options_of(
        parse("--replicas=1,2", "--model=tiny,cnn", "--batch=8", "--weak", "--rows=9")
    )
    assert options == Options(
        replicas=(1, 2), models=("tiny", "cnn"), batch=8, weak=True, rows=9
    )


def test_replicas_that_are_not_numbers():
    with pytest.raises(ValueError, match="--replicas=1,x. Expected integers"):
        command.options_of(parse("--replicas=1,x"))


def test_pictures_need_a_folder():
    with pytest.raises(ValueError, match="--plot needs --output=DIR"):
        command.run(parse("--plot"))
