"""On devices with their own memory, streams and copies."""

import re

import pytest

ENGINES = pytest.mark.parametrize("engine", ["threads", "mirrored"])


@pytest.mark.parametrize(
    ("num_gpus", "how"),
    [(1, (1,)), (2, (1,)), (4, (1,)), (8, (1,)), (2, (2,)), (2, (1, "frozen"))],
)
def test_inputs_and_outputs_of_all_kinds(on_gpus, num_gpus, how):
    wrong, _ = on_gpus("cases_matrix.matrix", num_gpus, *how, num_gpus=num_gpus)
    assert wrong == []


def test_strings_images_and_random_numbers(on_gpus):
    assert on_gpus("cases_kinds.others", 2)[0] == []


@pytest.mark.parametrize("num_gpus", [2, 8])
def test_make_parallel(on_gpus, num_gpus):
    assert on_gpus("cases_matrix.parallel", num_gpus, num_gpus=num_gpus)[0] == []


def test_the_search_for_a_step(on_gpus):
    apart, (first, again) = on_gpus("cases_steps.search", num_gpus=2)[0]
    assert max(apart) < 1e-5
    assert first == ["frozen", ["frozen", "plain"], 0, 2]
    assert again[1:] == [[], 0, 2]  # it is known


class TestRuns:
    @pytest.fixture
    def outcome(self, on_gpus):
        return on_gpus("cases_runs.all_of_them", 2)[0]

    @ENGINES
    def test_every_byte_crosses_once(self, outcome, engine):
        size = outcome["rows"]
        for total in map(sum, zip(*outcome[engine]["copied"], strict=True)):
            assert size <= total < 1.05 * size + 100_000

    def test_each_gpu_of_the_mirrored_engine_has_its_own_share(self, outcome):
        share = outcome["rows"] / 2
        for in_and_out in outcome["mirrored"]["copied"]:
            for copied in in_and_out:  # nothing passes through the first GPU
                assert share <= copied < 1.05 * share + 100_000

    @ENGINES
    def test_only_results_are_read_back(self, outcome, engine):
        expected = {
            "predict None": 1000 * 4,
            "predict float16": 1000 * 2,
            "predict_top_k None": 5 * (4 + 4),  # classes and scores
            "predict_top_k float16": 5 * (4 + 2),
        }
        for method, (copied, reported) in outcome[engine]["read back"].items():
            row_bytes = expected.pop(method)
            assert reported == row_bytes
            assert row_bytes <= copied < 1.05 * row_bytes + 20
        assert not expected

    @ENGINES
    def test_metrics_are_computed_on_the_host(self, outcome, engine):
        found, expected, copied, size = outcome[engine]["metrics"]
        assert found == pytest.approx(expected, rel=1e-5)
        assert size <= copied < 1.05 * size + 100_000

    def test_weights_are_compared_on_the_devices(self, outcome):
        copied, results, weights, distance = outcome["drop_in"]
        assert results <= copied < results + 0.1 * weights
        assert distance < 1e-6

    @ENGINES
    def test_device_memory_does_not_grow(self, outcome, engine):
        assert outcome[engine]["grown"] <= 2**16

    @ENGINES
    def test_constants_live_on_each_gpu_and_those_of_old_weights_go(
        self, outcome, engine
    ):
        weights, held, error = outcome[engine]["frozen"]
        assert error < 1e-5
        for on_gpu in held:  # variables, constants, and what they are compared with
            assert all(weights < each < 3.1 * weights for each in on_gpu)

    @ENGINES
    def test_the_rows_of_a_run_are_freed_with_it(self, outcome, engine):
        assert outcome[engine]["freed"]

    def test_xla_is_used_only_if_it_is_available(self, outcome):
        assert 'compile="plain"' in outcome["without_xla"]


class TestOutOfMemory:
    """A failed allocation has waited ten seconds, so few may fail."""

    @pytest.fixture
    def ran(self, on_gpus):
        outcome, log = on_gpus("cases_memory.all_of_them", num_gpus=8, log_level=1)
        for run in outcome.values():
            # TensorFlow logs this each time that it gives up.
            gpus = "|".join(map(str, run["gpus"]))
            failed = rf"PluggableDevice_({gpus})_bfc\) ran out of memory trying"
            run["failures"] = len(re.findall(failed, log))
            assert run["first"]["exact"] and run["second"]["exact"]
        return outcome

    @ENGINES
    @pytest.mark.parametrize("kind", ["inputs", "activations"])
    def test_by_a_batch(self, ran, kind, engine):
        run = ran[f"{kind}, {engine}"]
        assert 0 < run["failures"] <= 2
        assert 0 < len(run["first"]["back_offs"]) <= 2
        assert run["second"]["back_offs"] == []  # what fits is remembered
        assert run["second"]["batch"] == run["first"]["batch"]

    @ENGINES
    def test_by_results_of_several_batches(self, ran, engine):
        run = ran[f"outputs, {engine}"]
        assert run["failures"] == 0  # memory was measured before
        assert run["first"]["batch"] == run["second"]["batch"] == 32

    @pytest.mark.parametrize("kind", ["inputs", "activations"])
    def test_each_gpu_has_its_own_rows_after_a_back_off(self, ran, kind):
        run = ran[f"{kind}, mirrored"]
        first, batch = run["first"], run["first"]["batch"]
        assert run["first"]["back_offs"][0][0] % batch  # not a multiple of it
        for copied in first["bytes_in"]:
            assert copied > 0.4 * run["input"]


class TestEnsembles:
    @pytest.fixture
    def outcome(self, on_gpus):
        return on_gpus("cases_ensembles.all_of_them", num_gpus=8)[0]

    @pytest.mark.parametrize("combine", ["mean", "mean_std", "stack"])
    def test_activations_of_one_member_at_a_time_are_in_memory(self, outcome, combine):
        peaks = outcome["peaks"]
        more = peaks[combine] - peaks["one"] - outcome["weights"]
        assert more < 0.25 * outcome["activations"]

    @ENGINES
    def test_a_batch_that_does_not_fit_is_run_in_smaller_ones(self, outcome, engine):
        run = outcome["backed off"][engine]
        assert run["exact"]
        assert 0 < len(run["back_offs"]) <= 2


class TestTimes:
    @pytest.fixture
    def outcome(self, on_gpus):
        return on_gpus("cases_times.all_of_them")[0]

    @ENGINES
    @pytest.mark.parametrize("direction", ["in", "out"])
    def test_copies_overlap_with_computing(self, outcome, engine, direction):
        assert outcome[engine]["beside"][direction] > 0.5  # 0.9 on an idle machine

    @ENGINES
    def test_other_threads_of_the_program_keep_running(self, outcome, engine):
        assert outcome[engine]["longest_wait"] < 0.4  # a batch takes 0.6 s

    @ENGINES
    @pytest.mark.parametrize("case", ["copies in", "copies out"])
    def test_the_report_says_that_copies_are_waited_for(self, outcome, engine, case):
        bound, shares = outcome[engine]["bounds"][case]
        assert bound == "transfer", shares
        larger, other = ("copy_in", "copy_out")[:: 1 if case == "copies in" else -1]
        assert shares[larger] > 0.4 > shares[other]

    @ENGINES
    @pytest.mark.parametrize("direction", ["in", "out"])
    def test_the_report_says_that_computing_is_waited_for(
        self, outcome, engine, direction
    ):
        case = f"computing, some copies {direction}"
        bound, shares = outcome[engine]["bounds"][case]
        assert bound == "compute", shares
