import fcntl
import os
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.supervise import log
from extproc.supervise.log import LONGEST_LINE, Lines, Log, prefixes


def cut(data, sizes):
    """`data` in pieces of the given sizes, then the rest."""
    for size in sizes:
        yield data[:size]
        data = data[size:]
    yield data


@given(st.binary(max_size=400), st.lists(st.integers(0, 40), max_size=12))
def test_lines_do_not_depend_on_how_the_bytes_arrive(data, sizes):
    lines = Lines()
    found = [line for piece in cut(data, sizes) for line in lines.feed(piece)] + lines.finish()

    expected = data.split(b"\n")
    if not expected[-1]:
        expected.pop()
    assert found == [line.rstrip(b"\r") for line in expected]


@pytest.mark.parametrize("piece", [1000, LONGEST_LINE, 3 * LONGEST_LINE])
def test_a_very_long_line_is_cut_and_says_so(piece):
    lines = Lines()
    data = b"x" * (3 * LONGEST_LINE) + b"\nnext\n"
    found = [line for piece in cut(data, [piece] * 100) for line in lines.feed(piece)]

    assert found[0].startswith(b"x" * LONGEST_LINE + " … [".encode())
    assert found[0].endswith(f"[{2 * LONGEST_LINE} bytes cut]".encode())
    assert found[1] == b"next"


def test_a_line_that_never_ends_takes_bounded_memory():
    lines = Lines()
    for _ in range(100):
        assert lines.feed(b"x" * LONGEST_LINE) == []

    assert len(lines._part) == LONGEST_LINE


def test_names_are_aligned():
    assert prefixes(["a", "long"], colour=False) == {"a": b"a    | ", "long": b"long | "}


def test_colours_surround_the_name_only():
    found = prefixes(["a", "b"], colour=True)

    assert found == {"a": b"\x1b[36ma | \x1b[0m", "b": b"\x1b[33mb | \x1b[0m"}


def everything(fd):
    found = b""
    while chunk := os.read(fd, 65536):
        found += chunk
    return found


def test_every_line_is_written_with_its_name_in_order():
    reading, writing = os.pipe()
    with Log(writing, ["worker"], colour=False) as out:
        out.own("starting")
        out.line("worker", b"hello")
        out.line("worker", b"")
    os.close(writing)

    assert everything(reading) == b"kvoy   | starting\nworker | hello\nworker | \n"
    os.close(reading)


@pytest.mark.parametrize("high", [False, True], ids=["low", "above-1023"])
def test_a_non_blocking_descriptor_gets_every_line(high):
    reading, writing = os.pipe()
    if high:
        writing = moved_up(writing)
    os.set_blocking(writing, False)
    found = []
    reader = threading.Thread(target=lambda: found.append(everything(reading)))
    with Log(writing, [], colour=False) as out:
        for at in range(5000):
            out.own(f"{at:0100d}")
        reader.start()
    os.close(writing)
    reader.join()
    os.close(reading)

    assert [int(line.split(b"| ")[1]) for line in found[0].splitlines()] == list(range(5000))


def moved_up(descriptor):
    up = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 1024)
    os.close(descriptor)
    return up


def test_a_reader_that_stopped_reading_never_blocks_and_learns_how_much_it_missed(monkeypatch):
    monkeypatch.setattr(log, "QUEUED_LINES", 50)
    reading, writing = os.pipe()
    said = 0
    with Log(writing, [], colour=False) as out:
        for at in range(20_000):  # far more than pipe and queue hold
            out.own(f"line {at:0100d}")
            said += 1
        found = b""
        while b"end of it" not in found:
            found += os.read(reading, 65536)
            out.own("end of it")
            said += 1
        rest = []
        reader = threading.Thread(target=lambda: rest.append(everything(reading)))
        reader.start()
    os.close(writing)
    reader.join()
    os.close(reading)

    lines = (found + rest[0]).decode().splitlines()
    assert all(line.startswith("kvoy | ") for line in lines)
    lost = [line for line in lines if line.endswith("were lost: its reader is too slow]")]
    assert lost
    missed = sum(int(line.split("[")[1].split(" ")[0]) for line in lost)
    assert len(lines) - len(lost) + missed == said


def test_a_reader_that_went_away_is_no_error():
    reading, writing = os.pipe()
    os.close(reading)
    with Log(writing, [], colour=False) as out:
        out.own("to nobody")
    os.close(writing)
