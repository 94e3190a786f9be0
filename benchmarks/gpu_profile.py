"""What a GPU did at the same time, from TensorFlow's profiler."""

import itertools
import pathlib

BUSY = ("none", "kernels", "in", "kernels+in", "out", "kernels+out", "in+out", "all")


def profiled(folder):
    """Seconds by what the first GPU did at the same time, from TensorFlow's profiler.

    A GPU is a plane of the profile, with a line for each of its streams.
    """
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    intervals = []
    for path in pathlib.Path(folder).rglob("*.xplane.pb"):
        space = xplane_pb2.XSpace.FromString(path.read_bytes())
        for plane in space.planes:
            if plane.name == "/device:GPU:0":
                intervals += _intervals(plane)
    return busy_of(intervals)


def _intervals(plane):
    for line in plane.lines:
        for event in line.events if line.name.startswith("Stream") else ():
            name = plane.event_metadata[event.metadata_id].name
            if "Memcpy" in name and "H2D" not in name and "D2H" not in name:
                continue  # within the device
            engine = 1 if "H2D" in name else 2 if "D2H" in name else 0
            begin = line.timestamp_ns * 1e-9 + event.offset_ps * 1e-12
            yield begin, begin + event.duration_ps * 1e-12, engine


def busy_of(intervals):
    """Seconds by what ran at the same time, from (begin, end, index of the engine)."""
    changes = sorted(
        change
        for begin, end, engine in intervals
        for change in ((begin, engine, 1), (end, engine, -1))
    )
    running, seconds = [0, 0, 0], dict.fromkeys(BUSY, 0.0)
    for (now, engine, by), (later, _, _) in itertools.pairwise(changes):
        running[engine] += by
        mask = sum((count > 0) << index for index, count in enumerate(running))
        seconds[BUSY[mask]] += later - now
    return seconds
