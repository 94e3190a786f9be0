"""Where shards are: next to each other or in one folder, never over each other."""

import pytest

from keras_mgpu_strategy.outputs.shards import Shard
from keras_mgpu_strategy.outputs.target import Target
from tests.outputs import places


def shards_of(path, count, **options):
    return [Target(path, Shard(index, count), **options) for index in range(count)]


def finish_shard(place, index, count):
    places.begin(place, finished=True)
    if place.path.suffix == ".parquet":
        place.partial.mkdir()
        for part in range(2):
            name = f"part-{index:05d}-of-{count:05d}-{part:05d}.parquet"
            (place.partial / name).write_text(f"{index} {part}")
    else:
        place.partial.write_text(f"{index}")
    place.place()


@pytest.mark.parametrize("name", ["out.npy", "out[1].csv"])
def test_shards_of_single_files_are_next_to_each_other(name, tmp_path):
    for index, place in enumerate(shards_of(tmp_path / name, 3)):
        place.check(resume=False, overwrite=False)
        finish_shard(place, index, 3)
        assert Shard(index, 3).file_of(place.path).read_text() == f"{index}"
        with pytest.raises(FileExistsError, match="this shard of .* was begun"):
            place.check(resume=False, overwrite=False)
        place.check(resume=True, overwrite=False)
        place.place()
    stem, suffix = name.rsplit(".", 1)
    assert sorted(places.tree(tmp_path)) == sorted(
        expected
        for index in range(3)
        for expected in (
            f"{name}.shard-{index:05d}-of-00003.journal",
            f"{stem}.shard-{index:05d}-of-00003.{suffix}",
        )
    )


@pytest.mark.parametrize("name", ["out.parquet", "out[1].parquet"])
def test_shards_of_folders_end_in_one(name, tmp_path):
    targets = shards_of(tmp_path / name, 3)
    for index in (2, 0, 1):
        targets[index].check(resume=False, overwrite=False)
        finish_shard(targets[index], index, 3)
    parts = {path.name: path.read_text() for path in (tmp_path / name).iterdir()}
    assert parts == {
        f"part-{index:05d}-of-00003-{part:05d}.parquet": f"{index} {part}"
        for index in range(3)
        for part in range(2)
    }


def test_clearing_a_shard_leaves_the_others(tmp_path):
    targets = shards_of(tmp_path / "out.parquet", 2)
    for index, place in enumerate(targets):
        finish_shard(place, index, 2)
    targets[0].clear()
    left = sorted(path.name for path in (tmp_path / "out.parquet").iterdir())
    assert left == [f"part-00001-of-00002-0000{part}.parquet" for part in range(2)]
    assert not targets[0].journal.exists()
    assert targets[1].journal.exists()


def test_placing_a_shard_resumes_wherever_it_was_stopped(tmp_path, monkeypatch):
    for count in range(7):
        place = Target(tmp_path / f"{count}.parquet", Shard(1, 2))
        places.begin(place, finished=True)
        place.partial.mkdir()
        for part in range(2):
            name = f"part-00001-of-00002-{part:05d}.parquet"
            (place.partial / name).write_text(f"{part}")
        with monkeypatch.context() as patch:
            places.stopping(patch, count)
            try:
                place.place()
            except places.Stopped:
                assert place.journal.exists()
        place.place()
        assert [p.read_text() for p in sorted(place.path.iterdir())] == ["0", "1"]
        assert not place.partial.exists()


@pytest.mark.parametrize("name", ["out.npy", "out.parquet", "out.zarr"])
def test_a_finished_shard_that_is_gone_is_an_error(name, tmp_path):
    place = Target(tmp_path / name, Shard(0, 2), is_shared=name.endswith("zarr"))
    places.begin(place, finished=True)
    with pytest.raises(FileNotFoundError, match="was finished, but it is gone"):
        place.place()


@pytest.mark.parametrize("name", ["out.npy", "out.parquet", "out.zarr", "o[1].npy"])
def test_another_number_of_shards_is_refused(name, tmp_path):
    places.begin(Target(tmp_path / name, Shard(0, 2)))
    other = Target(tmp_path / name, Shard(1, 3))
    with pytest.raises(FileExistsError, match="another number of shards than 3"):
        other.check(resume=False, overwrite=False)
    Target(tmp_path / name, Shard(1, 2)).check(resume=False, overwrite=False)


@pytest.mark.parametrize("found", ["out.npy", "out.shard-00000-of-00002.npy"])
def test_a_shard_does_not_join_what_is_not_of_shards(found, tmp_path):
    (tmp_path / found).write_text("old")
    place = Target(tmp_path / "out.npy", Shard(0, 2))
    with pytest.raises(FileExistsError, match=f"{found} exists"):
        place.check(resume=False, overwrite=False)
    place.check(resume=False, overwrite=True)


def test_shards_that_share_the_output_write_into_it(tmp_path):
    targets = shards_of(tmp_path / "out.zarr", 2, is_shared=True)
    assert {place.partial for place in targets} == {tmp_path / "out.zarr"}
    (tmp_path / "out.zarr").mkdir()
    (tmp_path / "out.zarr" / "chunk").write_text("others'")
    places.begin(targets[0], finished=True)
    targets[1].check(resume=False, overwrite=False)
    targets[1].clear()
    targets[0].place()
    assert (tmp_path / "out.zarr" / "chunk").read_text() == "others'"
    assert targets[0].journal.exists()
