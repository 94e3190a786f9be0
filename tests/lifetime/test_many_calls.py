"""After many calls of many kinds and sizes, nothing is traced again or left behind.

A call on `engine="mirrored"` starts a tf.data pipeline and takes ten times as long.
"""

import pytest

from tests import children
from tests.lifetime import many_calls


@pytest.mark.slow
@pytest.mark.parametrize(
    ("engine", "num_calls"), [("threads", 9900), ("mirrored", 100)]
)
def test_ten_thousand_calls_leave_nothing_behind(engine, num_calls):
    process = children.start(many_calls.run, engine, num_calls)
    assert children.end_of(process, timeout=500) == 0
