"""Which values a line of a journal may hold, and how others are refused."""

import dataclasses

import pytest

from keras_mgpu_strategy.outputs import journal
from keras_mgpu_strategy.outputs.journal import Progress
from tests.messages import exactly
from tests.outputs import places

ABOUT = {"run": {"model": "ä"}, "layout": [["first", [2], "float32"]]}
BEGIN = {"journal": 2, "about": ABOUT}
STEP = dataclasses.asdict(Progress(8, 4, 4, {"rows": 8, "bytes": 99}))
for later in ("metrics", "step"):  # lines of earlier versions lack these
    del STEP[later]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "scores.npy.journal"


def write(path, *records):
    path.write_bytes(b"".join(map(places.line, records)))


def damaged(path, number, why=""):
    return exactly(
        f"The journal {path} is damaged in line {number}{why}, so how far its output "
        "is cannot be known. Nothing was touched. Pass overwrite=True to begin again."
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"start": 8},  # a batch that begins where the rows on disk end
        {"start": 0, "batch_size": 0},
        {"batch_size": 2**31},
        {"rows": 2**63 - 1, "mark": {"rows": 2**63 - 1}},
        {"mark": {"rows": 8}},
        {"mark": {"rows": 8, "bytes": 0}},
        {"finished": True},
        {"finished": True, "mark": {}},
        {"rows": 0, "start": 0, "mark": {"rows": 0}},
    ],
)
def test_values_at_the_limits_are_read(path, changes):
    write(path, BEGIN, STEP | changes)
    assert journal.read(path).progress == Progress(**STEP | changes)


def test_a_journal_of_version_1_is_old_and_records_no_content(path):
    step = {name: value for name, value in STEP.items() if name != "content"}
    write(path, BEGIN | {"journal": 1}, step)
    found = journal.read(path)
    assert found.is_old and found.progress == Progress(**step)
    write(path, BEGIN, STEP)
    assert not journal.read(path).is_old
    write(path, BEGIN, step)
    with pytest.raises(ValueError, match=damaged(path, 2)):
        journal.read(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"start": -1},
        {"start": 9},
        {"batch_size": -1},
        {"batch_size": 2**31 + 1},
        {"batch_size": True},
        {"rows": 2**63, "mark": {"rows": 2**63}},
        {"rows": -1},
        {"rows": 8.0},
        {"rows": "8"},
        {"rows": None},
        {"more": 1},
        {"mark": None},
        {"mark": []},
        {"mark": {}},
        {"mark": {"bytes": 8}},
        {"mark": {"rows": 7}},
        {"mark": {"rows": "8"}},
        {"mark": {"rows": 8, "bytes": -1}},
        {"mark": {"rows": 8, "more": 1}},
        {"finished": 1},
        {"finished": None},
        {"finished": True, "mark": {"rows": 7}},
        {"finished": True, "mark": {"bytes": 8}},
    ],
)
def test_values_beyond_the_limits_are_refused(path, changes):
    write(path, BEGIN, STEP, STEP | changes)
    with pytest.raises(ValueError, match=damaged(path, 3)):
        journal.read(path)


ARRAY = ["float32", [2], "AACAPwAAAEA="]
STATE = {
    "name": "auc",
    "kind": "keras.AUC",
    "config": {"name": "auc"},
    "rows": [["int64", []], ["float32", [3]]],
    "arrays": [ARRAY, ["int32", [], "AQAAAA=="]],
}
METRICS = {"row": 6, "states": [STATE]}


def test_lines_without_metrics_leave_those_before(path):
    more = STEP | {"rows": 12, "mark": {"rows": 12}}
    write(path, BEGIN, STEP, STEP | {"metrics": METRICS}, more)
    assert journal.read(path).progress == Progress(**more, metrics=METRICS)
    # Resuming after rows that are not in the metrics would leave some out.
    write(path, BEGIN, STEP | {"metrics": METRICS}, more | {"start": 7})
    with pytest.raises(
        ValueError, match=damaged(path, 3, " (its metrics count 6 rows)")
    ):
        journal.read(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"row": 3},
        {"row": 9},
        {"row": 6.0},
        {"more": 1},
        {"states": {}},
        {"states": [3]},
        *[
            {"states": [STATE | change]}
            for change in (
                {"more": 1},
                {"name": 3},
                {"config": []},
                {"rows": [["int64", []]]},
                {"rows": [["int64", []], ["float32", [2**26 + 1]]]},
                {"rows": [["int64", [-1]], ["float32", []]]},
                {"arrays": {}},
                {"arrays": [ARRAY[:2]]},
                {"arrays": [["object", *ARRAY[1:]]]},
                {"arrays": [[[], *ARRAY[1:]]]},
                {"arrays": [["float32", [3], ARRAY[2]]]},
                {"arrays": [["float32", [2], ARRAY[2][:-1] + "!"]]},
                {"arrays": [["float32", [2], 7]]},
            )
        ],
    ],
)
def test_damaged_metrics_are_refused(path, changes):
    write(path, BEGIN, STEP | {"metrics": METRICS})
    assert journal.read(path).progress.metrics == METRICS
    for metrics in (METRICS | changes, None):
        write(path, BEGIN, STEP, STEP | {"metrics": metrics})
        with pytest.raises(
            ValueError, match=f"^The journal {path} is damaged in line 3"
        ):
            journal.read(path)


@pytest.mark.parametrize("kind", ["plain", "frozen", "xla"])
def test_the_step_that_computes_is_kept(path, kind):
    progress = Progress(**STEP, step=kind)
    journal.create(path, ABOUT)
    made = journal.read(path)
    made.add(progress)
    made.close()
    assert journal.read(path).progress == progress


@pytest.mark.parametrize("kind", ["fast", None, ["xla"], 1])
def test_an_unknown_step_is_refused(path, kind):
    write(path, BEGIN, STEP, STEP | {"step": kind})
    with pytest.raises(ValueError, match=damaged(path, 3)):
        journal.read(path)


def test_lines_may_repeat_and_grow_but_neither_shrink_nor_follow_the_end(path):
    more = STEP | {"rows": 12, "mark": {"rows": 12}}
    end = more | {"finished": True}
    write(path, BEGIN, STEP, STEP, more, end)
    assert journal.read(path).progress == Progress(**end)
    write(path, BEGIN, STEP, more, STEP, more)
    with pytest.raises(ValueError, match=damaged(path, 4)):
        journal.read(path)
    write(path, BEGIN, end, end)
    with pytest.raises(ValueError, match=damaged(path, 3)):
        journal.read(path)


@pytest.mark.parametrize(
    ("record", "why"),
    [
        (BEGIN | {"more": 1}, ""),
        (BEGIN | {"about": ABOUT | {"more": 1}}, ""),
        (BEGIN | {"about": {"run": {}}}, ""),
        (BEGIN | {"about": ABOUT | {"run": []}}, ""),
        (BEGIN | {"about": ABOUT | {"layout": 3}}, " (it describes outputs by 3)"),
        (b'{"journal": 1, "journal": 1}', " (it has the key 'journal' twice)"),
        (b"[]", ""),
    ],
)
def test_another_first_line_is_refused_with_the_reason(path, record, why):
    write(path, record, STEP)
    with pytest.raises(ValueError, match=damaged(path, 1, why)):
        journal.read(path)


@pytest.mark.parametrize(
    "changes",
    [{"journal": version} for version in (0, 3, "1", True, None)]
    + [{"about": []}, {"about": None}],
)
def test_a_journal_of_another_version_says_what_to_do(path, changes):
    write(path, BEGIN | changes)
    message = (
        f"{path} is not a journal of version 1 or 2, so it was written by a newer "
        "version of this package or is another file. Remove it to begin again."
    )
    with pytest.raises(ValueError, match=exactly(message)):
        journal.read(path)


def test_the_order_of_keys_does_not_matter(path):
    journal.create(path, {"run": {"a": 1, "b": {"c": 2, "d": 3}}, "layout": []})
    content = path.read_bytes()
    journal.create(path, {"layout": [], "run": {"b": {"d": 3, "c": 2}, "a": 1}})
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        (float("nan"), ValueError, "not JSON compliant"),
        (b"", TypeError, "'bytes' object cannot be interpreted as an integer"),
    ],
)
def test_what_could_not_be_read_back_is_not_written(path, value, error, message):
    with pytest.raises(error, match=message):
        journal.create(path, {"run": {"value": value}, "layout": []})
    assert not list(path.parent.iterdir())
