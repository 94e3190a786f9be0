"""The file of `tuning=`: what it keeps, for which runs, and what is refused."""

import json
import multiprocessing
import os
import stat

import pytest

from keras_mgpu_strategy.runs.tuning import Found, TuningFile

RUN = {"model": "sha256 ä", "devices": ["CPU"], "per-replica batch": None}
FOUND = Found("frozen", 64, 1e-5)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "tuned.json"


def test_what_is_put_is_found_by_others(path):
    TuningFile(path).put(RUN, FOUND)
    other = RUN | {"per-replica batch": 8}
    TuningFile(str(path)).put(other, Found("xla", None, 2.0))
    again = TuningFile(path)
    assert (again.find(RUN), again.find(other)) == (FOUND, Found("xla", None, 2.0))
    assert again.find(RUN | {"devices": ["GPU"]}) is None
    assert os.listdir(path.parent) == [path.name]


def test_a_relative_path_stays_when_the_folder_changes(tmp_path, monkeypatch):
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path)
    file = TuningFile("tuned.json")
    monkeypatch.chdir(tmp_path / "other")
    file.put(RUN, FOUND)
    assert file.find(RUN) == TuningFile(tmp_path / "tuned.json").find(RUN) == FOUND


def test_entries_that_were_not_looked_for_stay(path):
    file = TuningFile(path)
    file.put(RUN, FOUND)
    file.put(RUN, Found(None, 128, 1e-6))
    assert file.find(RUN) == Found("frozen", 128, 1e-6)
    file.put(RUN, Found("plain", None, 1e-7))
    assert file.find(RUN) == Found("plain", 128, 1e-7)


def test_the_oldest_are_dropped(path):
    file = TuningFile(path)
    file.put(RUN, FOUND)
    content = json.loads(path.read_bytes())
    content["found"] *= 1000
    path.write_text(json.dumps(content))
    file.put({"model": "new"}, FOUND)
    assert len(json.loads(path.read_bytes())["found"]) == 1000 or file.find(RUN) is None
    assert file.find({"model": "new"}) == FOUND


ENTRY = {"run": RUN, "step": "plain", "batch_size": 8, "seconds_per_row": 1.0}


def whole(*entries, version=1):
    return {"keras_mgpu_strategy tuning": version, "found": [*entries]}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "Expecting value"),
        (b"\x80model", "utf-8"),
        (b"[]", "it is not of this package"),
        (b'{"a": 1, "a": 2}', "it has the key 'a' twice"),
        ({"accuracy": 0.9}, "it is not of this package"),
        (whole() | {"more": 1}, "it is not of this package"),
        (whole(version=2), "its version is 2, expected 1"),
        (whole(version=True), "its version is True, expected 1"),
        *[
            (whole(ENTRY, entry), "its entry 1 is not one of this package")
            for entry in [
                *([], {}, ENTRY | {"more": 1}, ENTRY | {"run": []}),
                *(ENTRY | {"step": step} for step in ("fast", 1, ["xla"])),
                *(ENTRY | {"batch_size": n} for n in (0, -1, True, 1.5, 65537, 10**18)),
                *(ENTRY | {"seconds_per_row": x} for x in (0.0, -1.0, 1, "1")),
            ]
        ],
    ],
)
def test_other_files_are_refused_before_anything_runs(path, content, why):
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    path.write_bytes(raw)
    with pytest.raises(ValueError) as caught:
        TuningFile(path)
    text = str(caught.value)
    assert text.startswith(f"tuning={str(path)!r} is damaged or another file (")
    assert why in text and "Nothing was touched" in text
    assert path.read_bytes() == raw


def test_impossible_paths_are_refused(tmp_path):
    with pytest.raises(ValueError, match="it is not a small file"):
        TuningFile(tmp_path)
    with pytest.raises(FileNotFoundError, match="There is no folder"):
        TuningFile(tmp_path / "none" / "tuned.json")
    with pytest.raises(TypeError, match="tuning=3 of type int. Expected the path of"):
        TuningFile(3)


def test_a_file_that_cannot_be_written_is_a_warning(path):
    file = TuningFile(path)
    path.write_text("{}")
    with pytest.warns(RuntimeWarning, match="What was tuned could not be kept: tuning"):
        file.put(RUN, FOUND)
    path.unlink()
    path.mkdir()
    with pytest.warns(RuntimeWarning, match="What was tuned could not be kept"):
        file.put(RUN, FOUND)
    assert os.listdir(path.parent) == [path.name]


def put_some(path, name):
    for number in range(20):
        TuningFile(path).put({"model": name, "number": number}, FOUND)


def test_processes_that_write_at_once_lose_nothing(path):
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=put_some, args=(path, n)) for n in "abc"]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    file = TuningFile(path)
    for name in "abc":
        for number in range(20):
            assert file.find({"model": name, "number": number}) == FOUND
    assert os.listdir(path.parent) == [path.name]
    assert stat.S_ISREG(path.stat().st_mode)
