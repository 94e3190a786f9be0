"""The journal: what is read is what was written, or an error; never another number."""

import os
import resource
from typing import Any

import numpy as np
import pytest

from keras_mgpu_strategy.outputs import durable, journal
from keras_mgpu_strategy.outputs.journal import Progress
from tests.formats import stored
from tests.outputs import places

ABOUT = {"run": {"model": "ä" * 3, "shard": [1, 4], "steps": None}, "layout": []}
STEPS = [
    Progress(0, 0, 16, {"rows": 0}),
    Progress(96, 96, 16, {"rows": 96, "bytes": 1234}),
    Progress(1003, 1000, 8, {"rows": 1003, "bytes": 99999}),
    Progress(1007, 1000, 8, {}, finished=True),
]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "out.npy.journal"


@pytest.fixture
def whole(path):
    """The bytes of a journal of all the steps."""
    written = journal.create(path, ABOUT)
    for step in STEPS:
        written.add(step)
    written.close()
    return path.read_bytes()


def line_ends(content):
    return [place + 1 for place, byte in enumerate(content) if byte == ord("\n")]


def test_what_was_written_is_read(path):
    written = journal.create(path, ABOUT)
    assert (written.about, written.progress) == (ABOUT, None)
    assert journal.read(path).progress is None
    for step in STEPS:
        written.add(step)
        assert written.progress == step
        found = journal.read(path)
        assert (found.about, found.progress) == (ABOUT, step)
    written.close()
    written.close()


def test_a_last_line_torn_at_any_byte_is_dropped(path, whole):
    ends = line_ends(whole)
    for size in range(ends[0], len(whole) + 1):
        path.write_bytes(whole[:size])
        num_whole = sum(end <= size for end in ends) - 1
        found = journal.read(path)
        assert found.about == ABOUT
        assert found.progress == (STEPS[num_whole - 1] if num_whole else None)


def test_a_first_line_torn_at_any_byte_is_an_error(path, whole):
    for size in range(line_ends(whole)[0]):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=f"{path} is damaged in line 1"):
            journal.read(path)


@pytest.mark.parametrize("change", [1, 0x20, 0x80, 0xFF, ord("\n")])
def test_a_damaged_byte_is_an_error_or_drops_the_last_line(path, whole, change):
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] = change if change == ord("\n") else damaged[place] ^ change
        if damaged == whole:
            continue
        path.write_bytes(damaged)
        try:
            found = journal.read(path)
        except ValueError as error:
            assert "is damaged in line" in str(error)
            continue
        assert place == len(whole) - 1  # the last line lost its end
        assert (found.about, found.progress) == (ABOUT, STEPS[-2])


def test_lost_and_doubled_lines_of_another_file_are_errors(path, whole):
    lines = whole.splitlines(keepends=True)
    path.write_bytes(b"".join(lines[1:]))
    with pytest.raises(ValueError, match="is not a journal of version 1"):
        journal.read(path)
    path.write_bytes(whole + lines[0])
    with pytest.raises(ValueError, match=f"is damaged in line {len(lines) + 1}"):
        journal.read(path)
    path.write_bytes(lines[0] + b"\n" + lines[1])
    with pytest.raises(ValueError, match="is damaged in line 2"):
        journal.read(path)


@pytest.mark.parametrize(
    "content",
    [b"", b"\n", b"\n\n", b"\xff\xfe\x00\n", "grün\n".encode("latin-1"), b"{}\n"]
    + [
        places.line(b"\xff"),
        places.line(b"{"),
        places.line(b"[" * 10**5),
        places.line([1]),
    ],
)
def test_what_is_not_a_journal_is_an_error(path, content):
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is damaged in line 1.*Nothing was touched"):
        journal.read(path)
    assert path.read_bytes() == content


def test_a_huge_file_is_an_error_and_not_read(path):
    path.write_bytes(b"")
    os.truncate(path, 2**40)
    with pytest.raises(ValueError, match=f"{path} is damaged in line 1"):
        journal.read(path)


def test_a_missing_journal_is_an_error(path):
    with pytest.raises(ValueError, match="is missing"):
        journal.read(path)


def test_resuming_drops_a_torn_line_and_adds_after_the_last_whole_one(path, whole):
    ends = line_ends(whole)
    for size in (ends[1], ends[1] + 1, ends[2] - 1):
        path.write_bytes(whole[:size])
        found = journal.read(path)
        assert path.stat().st_size == size  # reading changes nothing
        for step in STEPS[1:]:
            found.add(step)
        found.close()
        assert path.read_bytes() == whole


def test_numpy_numbers_are_written_as_numbers(path):
    number: Any = np.int64(5)
    written = journal.create(path, {"run": {"batch": np.int64(16)}, "layout": []})
    written.add(Progress(number, 0, 16, {"rows": number}))
    written.close()
    assert journal.read(path).about["run"] == {"batch": 16}
    assert journal.read(path).progress == Progress(5, 0, 16, {"rows": 5})


def test_creating_replaces_what_was_there_at_once(path, whole):
    other = path.with_name("link")
    os.link(path, other)
    about = {"run": {"model": 2}, "layout": []}
    journal.create(path, about)
    assert journal.read(path).about == about
    assert other.read_bytes() == whole  # a new file, so never a mix of both
    assert sorted(path.parent.iterdir()) == [other, path]


def add_until_full(path):
    written = journal.create(path, ABOUT)
    written.add(STEPS[1])
    size = path.stat().st_size
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 40, hard))
    with pytest.raises(OSError, match="File too large"):
        written.add(STEPS[2])
    assert written.progress == STEPS[1]
    assert journal.read(path).progress == STEPS[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    written.add(STEPS[3])
    assert journal.read(path).progress == STEPS[3]


def test_a_line_that_did_not_fit_the_disk_is_written_over(path):
    process = stored.in_child(lambda: add_until_full(path))
    assert stored.exit_code(process) == 0


def test_a_shorter_line_leaves_nothing_of_a_longer_one_that_failed(path, monkeypatch):
    written = journal.create(path, ABOUT)
    written.add(STEPS[0])
    with monkeypatch.context() as patch:
        patch.setattr(durable.os, "fsync", fail)
        with pytest.raises(OSError, match="no such disk"):
            written.add(STEPS[2])
    written.add(STEPS[3])
    written.close()
    assert journal.read(path).progress == STEPS[3]


def fail(handle):
    raise OSError("no such disk")


def test_lines_are_on_disk_before_add_returns(path, monkeypatch):
    calls = []

    def watch(name):
        real = getattr(os, name)

        def watched(*arguments):
            is_file = name == "fsync" and os.path.isfile(
                f"/proc/self/fd/{arguments[0]}"
            )
            calls.append(f"{name} file" if is_file else name)
            return real(*arguments)

        monkeypatch.setattr(durable.os, name, watched)

    for name in ("fsync", "replace"):
        watch(name)
    written = journal.create(path, ABOUT)
    # The content, then its name, then the folder that holds the name.
    assert calls == ["fsync file", "replace", "fsync"]
    calls.clear()
    written.add(STEPS[0])
    assert calls == ["fsync file"]
    written.close()


def test_a_journal_of_one_line_is_read_as_it_was_made(path):
    last = Progress(
        1007, 1000, 8, {"state": 3}, finished=True, content="sha256 " + "0" * 32
    )
    path.write_bytes(journal.content_of(ABOUT, last))
    found = journal.read(path)
    assert (found.about, found.progress) == (ABOUT, last)
