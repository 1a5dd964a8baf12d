"""Curves as TensorBoard's event files. The library is imported when the first file is written."""

from collections.abc import Iterable
from pathlib import Path

from contract.metrics import Point, charted


def event_name(number: int) -> str:
    """The name of an event file. TensorBoard reads the files of a folder one after the other, in the order of names."""
    return f"events.out.tfevents.{number:010d}.gristmill"


def write_events(path: Path, points: Iterable[Point]) -> None:
    """Write the points that a chart can show as one event file."""
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.proto.summary_pb2 import Summary
    from tensorboardX.record_writer import RecordWriter

    writer = RecordWriter(str(path))
    first = True
    for point in charted(points):
        if first:
            writer.write(Event(wall_time=point.time, file_version="brain.Event:2").SerializeToString())
            first = False
        value = Summary.Value(tag=point.name, simple_value=point.value)
        event = Event(wall_time=point.time, step=point.step, summary=Summary(value=[value]))
        writer.write(event.SerializeToString())
    writer.close()
