"""A process that is forked from one in which TensorFlow runs: an error, no hang."""

import pytest

from tests import children
from tests.lifetime import forking

CASES = [
    forking.a_forked_process_is_refused_and_its_parent_goes_on,
    forking.a_forked_process_can_leave_an_iterator_behind,
    forking.a_process_of_multiprocessing_is_refused,
    forking.a_process_forked_before_tensorflow_starts_loads_a_model,
]


@pytest.mark.parametrize("case", CASES)
def test_in_a_process_of_its_own(case, engine):
    children.run(case, engine)
