"""Tests of Keras that do not pass with a Predictor's `predict`, each with the reason.

`DIFFERENCES` maps patterns of test names to what is different. It is checked both ways:
a test that it names must end as `shows` says, any other must pass.
"""

import dataclasses
import fnmatch

NEVER_PREDICTS = "never predicts"


@dataclasses.dataclass(frozen=True)
class Difference:
    """Why a test of Keras does not pass.

    Args:
        shows: Pattern found in how the test ends: the error, or `NEVER_PREDICTS`.
        reason: What is different, and why it stays so.
    """

    shows: str
    reason: str


_RAGGED = "Rows of different length are refused with the remedy: batches are padded."
_NO_CALL = "Calls `predict` in another of its variants alone."

DIFFERENCES = {
    "TestTrainer.test_predict_sparse_jax_*": Difference(
        # Without JAX, and with it.
        "No module named 'jax'|setting an array element with a sequence",
        "Sparse arrays of JAX, which is no dependency of this package.",
    ),
    "TestTrainer.test_trainer_with_raggeds_*": Difference(
        "TypeError: x is RaggedTensor: expected rows of one shape", _RAGGED
    ),
    "TestTrainer.test_steps_per_execution_steps_count_without_training": Difference(
        "AssertionError: 1 != 3",
        "Callbacks are called for each global batch, whatever `steps_per_execution` "
        "says: the batches of a call to a device are chosen by time.",
    ),
    "TestTrainer.test_steps_per_*not_match_too_low_*": Difference(
        NEVER_PREDICTS, _NO_CALL
    ),
    "TestTrainer.test_stop_loop_fit": Difference(NEVER_PREDICTS, _NO_CALL),
    "TestTrainer.test_stop_loop_evaluate": Difference(NEVER_PREDICTS, _NO_CALL),
}


def difference_of(name: str) -> Difference | None:
    """What the table says about a test."""
    found = [value for key, value in DIFFERENCES.items() if matches(name, [key])]
    assert len(found) < 2, f"{name} stands in the table {len(found)} times"
    return found[0] if found else None


def matches(name, patterns) -> bool:
    """Whether a name matches one of the patterns."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
