"""Frames about lives that are not enrolled: their engines may be heard of a moment later, by other means."""

from extproc.cache.frames import Frame

_LIMIT_BYTES = 256 * 1024
_FRAME_BYTES = 128
"""What a frame costs beside its hashes, about."""


class Early:
    """Keeps the frames of a few lives; beyond 256 KB it drops the life that it has kept for the longest."""

    __slots__ = ("_bytes", "_frames")

    def __init__(self) -> None:
        self._frames: dict[int, list[Frame]] = {}
        self._bytes = 0

    def keep(self, frame: Frame) -> None:
        """Keep the frame until its life is taken, or dropped for lack of room."""
        self._frames.setdefault(frame.life, []).append(frame)
        self._bytes += _size(frame)
        while self._bytes > _LIMIT_BYTES:
            self.take(next(iter(self._frames)))

    def take(self, life: int) -> list[Frame]:
        """The frames of the life in their order; they are then no longer kept."""
        frames = self._frames.pop(life, [])
        self._bytes -= sum(map(_size, frames))
        return frames


def _size(frame: Frame) -> int:
    return _FRAME_BYTES + len(frame.packed)
