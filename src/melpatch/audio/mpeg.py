"""Frames of MPEG audio (MP1, MP2, MP3), counted from their headers without decoding.

libsndfile takes the length of an MP3 file without a Xing frame from the size of the file, tags
included, and its first frame, and it reads no further than that. Here the frames are counted, and
a frame that states their number is put before them.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from io import BufferedReader
from typing import NamedTuple

# Sampling rates of MPEG 1, and their divisor by the version bits: MPEG 1, 2 and 2.5.
_RATES = (44100, 48000, 32000)
_DIVISORS = {3: 1, 2: 2, 0: 4}
# Bit rates in kbit/s by (MPEG 1, layer) and index; index 0 is a free rate, which is not followed.
_LOW = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_KBITS = {
    (True, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): _LOW,
    (False, 3): _LOW,
}
# Bytes between two frames that libsndfile's decoder skips; behind more of them it stops.
_LONGEST_GAP = 1024
# Frames by which a stated number may be wrong: some count the frame that states it.
_SLACK_FRAMES = 4
_BLOCK = 1 << 16
_XING = (b"Xing", b"Info")


class Link(NamedTuple):
    """A stretch of a file that libsndfile decodes as one file.

    Attributes:
        offset: its first byte.
        size: its bytes.
        head: bytes to decode before them: a frame that states the number of frames.
        exact: whether the length that libsndfile gives for it is stated, and no estimate.
        undecodable: why libsndfile does not decode it to its end; empty if it does.
    """

    offset: int
    size: int
    head: bytes = b""
    exact: bool = True
    undecodable: str = ""


class Pieces:
    """Bytes of a file by position, read in blocks."""

    def __init__(self, file: BufferedReader, size: int) -> None:
        self.size = size
        self._file = file
        self._start = 0
        self._block = b""

    def at(self, position: int, count: int) -> bytes:
        """Return ``count`` bytes from a position; fewer at the end of the file."""
        first = position - self._start
        if first < 0 or first + count > len(self._block):
            self._file.seek(position)
            self._start = position
            self._block = self._file.read(max(_BLOCK, count))
            first = 0
        return self._block[first : first + count]

    def find(self, text: bytes, position: int) -> int:
        """Return the next position of a text, or the end of the file."""
        while position < self.size:
            block = self.at(position, _BLOCK)
            place = block.find(text)
            if place >= 0:
                return position + place
            # The text may lie across the border of two blocks.
            position += max(1, len(block) - len(text) + 1)
        return self.size


class Frame(NamedTuple):
    """The header of a frame.

    Attributes:
        kind: version and layer bits, sampling rate in Hz, and whether there is one channel.
        size: bytes of the frame.
        mean_size: bytes of such frames on average, of which some are padded by a byte.
        layer: 1, 2 or 3.
        side: bytes between header and data of a layer 3 frame.
    """

    kind: tuple[int, int, bool]
    size: int
    mean_size: float
    layer: int
    side: int


def begins_frame(header: bytes) -> bool:
    """Return whether four bytes are the header of a frame, also one of a free bit rate."""
    fixed = bytes((*header[:2], header[2] & 0x0F | 0x10, header[3])) if len(header) == 4 else b""
    return frame_header(fixed) is not None


@lru_cache(1 << 12)
def frame_header(header: bytes) -> Frame | None:
    """Return what four bytes say as the header of a frame; None if they are none."""
    if len(header) < 4 or header[0] != 0xFF or header[1] & 0xE0 != 0xE0:
        return None
    bits = int.from_bytes(header, "big")
    version = bits >> 19 & 3
    layer = 4 - (bits >> 17 & 3)
    rate_index = bits >> 10 & 3
    index = bits >> 12 & 15
    if version == 1 or layer == 4 or rate_index == 3 or not 0 < index < 15:
        return None
    rate = _RATES[rate_index] // _DIVISORS[version]
    first_version = version == 3
    mono = bits >> 6 & 3 == 3
    bytes_per_second = _KBITS[first_version, layer][index] * 125
    padding = bits >> 9 & 1
    if layer == 1:
        size = (96 * bytes_per_second // rate + padding) * 4
        mean_size = 384 * bytes_per_second / rate
    else:
        samples = 1152 if first_version or layer == 2 else 576
        size = samples * bytes_per_second // rate + padding
        mean_size = samples * bytes_per_second / rate
    # Layer 3 has 32 bytes of side information, 17 with one channel or of MPEG 2, 9 with both.
    side = 17
    if first_version and not mono:
        side = 32
    elif mono and not first_version:
        side = 9
    return Frame((bits >> 17 & 15, rate, mono), size, mean_size, layer, side)


@dataclass
class _Run:
    """Successive frames of one kind.

    Attributes:
        offset: first byte of its first frame, or of the tag before it.
        begin: first byte of its first frame that holds sound.
        end: end of its last frame.
        header: header of its first frame.
        kind: kind of all its frames.
        stated: number of frames that its first frame states; 0 if none does.
        keep: whether libsndfile's decoder understands the frame that states it.
        frames: number of frames that hold sound.
        stated_end: end of the last of those that are stated.
        smallest: bytes of its smallest frame.
        largest: bytes of its largest frame.
    """

    offset: int
    begin: int
    end: int
    header: bytes
    kind: tuple[int, int, bool]
    stated: int = 0
    keep: bool = False
    frames: int = 0
    stated_end: int = 0
    smallest: int = 1 << 30
    largest: int = 0

    def add(self, size: int) -> None:
        """Count one more frame."""
        self.frames += 1
        self.end += size
        self.smallest = min(self.smallest, size)
        self.largest = max(self.largest, size)
        if self.frames == self.stated:
            self.stated_end = self.end


def mpeg_links(pieces: Pieces) -> tuple[Link, ...]:
    """Return the links of an MPEG audio file; none if no frame is there.

    A link begins with each frame that states a number of frames, behind each tag and long gap, and
    where the rate or the channels change.
    """
    if _states_its_size(pieces):
        return (Link(0, pieces.size),)
    runs = [*_runs(pieces)]
    links: list[Link] = []
    for run in runs:
        # What stands behind the last frame is left to the decoder, as tags are.
        links += _links_of_run(run, pieces.size if run is runs[-1] else run.end)
    return tuple(links)


def _runs(pieces: Pieces) -> Iterator[_Run]:
    """Yield the runs of a file, by walking from header to header."""
    run: _Run | None = None
    position = 0
    offset = 0
    while position < pieces.size:
        header = pieces.at(position, 4)
        if header[:3] == b"ID3":
            if run:
                yield run
            run = None
            offset = position
            position += _tag_size(pieces.at(position, 10))
            continue
        frame = frame_header(header)
        same = (
            run is not None
            and frame is not None
            and frame.kind == run.kind
            and position - run.end < _LONGEST_GAP
        )
        if frame is None or not (same or _is_confirmed(pieces, position, frame)):
            position = pieces.find(b"\xff", position + 1)
            continue
        if position + frame.size > pieces.size:
            break
        stated, keep = _stated_frames(pieces, position, frame)
        if run is None or not same or stated is not None:
            if run:
                yield run
                offset = position
            sound = position if stated is None else position + frame.size
            run = _Run(offset, sound, sound, header, frame.kind, stated or 0, keep)
        if stated is None:
            # Bytes between two frames belong to the run.
            run.end = position
            run.add(frame.size)
        position += frame.size
    if run:
        yield run


def _links_of_run(run: _Run, end: int) -> Iterator[Link]:
    """Yield the link of a run; a second one for the frames that its first frame does not count."""
    if not run.keep:
        # A frame that libsndfile's decoder ignores may state more frames than there are.
        frames = run.frames
        if run.stated > frames + _SLACK_FRAMES:
            frames = run.stated
        if frames:
            yield _counted(run, run.begin, run.end, frames)
    elif run.frames <= run.stated + _SLACK_FRAMES:
        yield Link(run.offset, end - run.offset)
    else:
        yield Link(run.offset, run.stated_end - run.offset)
        yield _counted(run, run.stated_end, run.end, run.frames - run.stated)


def _counted(run: _Run, begin: int, end: int, frames: int) -> Link:
    """Return a link of frames without a frame that states their number; put one before them.

    At a constant bit rate, libsndfile's own estimate is right within a frame, and is kept.
    """
    first = frame_header(run.header)
    assert first is not None
    padding = 4 if first.layer == 1 else 1
    constant = run.largest - run.smallest <= padding
    if constant and abs((end - begin) / first.mean_size - frames) < 2:
        return Link(begin, end - begin)
    if first.layer != 3:
        # The other layers have no such frame, and libsndfile stops where it estimates the end.
        reason = f"is MPEG layer {first.layer} of a variable bit rate, whose end is not found"
        return Link(begin, end - begin, undecodable=reason)
    return Link(begin, end - begin, _stating_frame(run.header, frames, end - begin))


def _stating_frame(header: bytes, frames: int, size: int) -> bytes:
    """Return a Xing frame of the kind of a header, without sound."""
    for index in range(1, 15):
        # Without checksum and padding, at the lowest bit rate whose frames are large enough.
        own = bytes((0xFF, header[1] | 1, index << 4 | header[2] & 0x0C, header[3]))
        frame = frame_header(own)
        if frame and frame.size >= 4 + frame.side + 16:
            break
    assert frame is not None
    tag = b"Xing" + struct.pack(">III", 3, frames, frame.size + size)
    return (own + bytes(frame.side) + tag).ljust(frame.size, b"\0")


def _tag_size(head: bytes) -> int:
    """Return the size of an ID3v2 tag by its first ten bytes."""
    size = 0
    for byte in head[6:10]:
        size = size << 7 | byte & 0x7F
    footer = 10 if len(head) > 5 and head[5] & 0x10 else 0
    return 10 + size + footer


def _is_confirmed(pieces: Pieces, position: int, frame: Frame) -> bool:
    """Return whether a frame ends where another one, a tag or the end of the file is."""
    # A header by chance inside of other data is hardly ever followed by one of its kind.
    end = position + frame.size
    follower = pieces.at(end, 4)
    following = frame_header(follower)
    if following is not None:
        return following.kind == frame.kind
    return end == pieces.size or follower[:3] in (b"ID3", b"TAG", b"APE", b"LYR")


def _stated_frames(pieces: Pieces, position: int, frame: Frame) -> tuple[int | None, bool]:
    """Return the number of frames that a frame states, and whether libsndfile understands it.

    The number is None for a frame that holds sound, and 0 if the frame omits it.
    """
    if frame.layer != 3:
        return None, False
    # Xing's and LAME's frame lies behind the side information, Fraunhofer's at a fixed place.
    tag = pieces.at(position + 4 + frame.side, 12)
    if tag[:4] in _XING:
        stated = int.from_bytes(tag[8:12], "big") if len(tag) == 12 and tag[7] & 1 else 0
        return stated, stated > 0
    if pieces.at(position + 36, 4) == b"VBRI":
        return int.from_bytes(pieces.at(position + 50, 4), "big"), False
    return None, False


def _states_its_size(pieces: Pieces) -> bool:
    """Return whether a file of a constant bit rate states numbers of frames and bytes that fit it.

    Then nothing follows, and its frames need not be counted.
    """
    start = 0
    if pieces.at(0, 3) == b"ID3":
        start = _tag_size(pieces.at(0, 10))
    frame = frame_header(pieces.at(start, 4))
    if frame is None or frame.layer != 3:
        return False
    tag = pieces.at(start + 4 + frame.side, 16)
    if tag[:4] != b"Info" or len(tag) < 16 or tag[7] & 3 != 3:
        return False
    frames, size = struct.unpack(">II", tag[8:16])
    second = frame_header(pieces.at(start + frame.size, 4))
    if second is None or second.kind != frame.kind:
        return False
    # A tag of 128 bytes may follow.
    fits = pieces.size - start - size in (0, 128)
    return fits and abs(frame.size + frames * second.mean_size - size) <= 4 + second.mean_size
