"""What stands in a FLAC file behind the samples that its header states.

libsndfile reads as many samples as the header states and ignores the rest. More may be there: a
second file, or the rest of a stream whose header was written before it was complete.
"""

from collections.abc import Iterator
from io import BufferedReader

from melpatch.audio.mpeg import Pieces

# How a stream begins: the marker, then the block that describes it, which is the last one or not.
_STARTS = (b"fLaC\x00\x00\x00\x22", b"fLaC\x80\x00\x00\x22")
# Bytes before the decoder's position that it may have read ahead.
_READ_AHEAD = 1 << 17
# Bytes at the end in which a frame begins; the largest frames of 8 channels are a little longer.
_TAIL = 1 << 17
_LONGEST_HEADER = 16
# Bytes behind the last frame that are no sound, at most.
_LONGEST_TAG = 1 << 12
# Samples of a frame by the code in its header: none if the code is reserved or means otherwise.
_SAMPLES = {1: 192, **{code: 144 << code for code in range(2, 6)}}
_SAMPLES |= {code: 1 << code for code in range(8, 16)}


def sound_behind(file: BufferedReader, size: int, stated: int) -> str | None:
    """Return what sound stands behind the stated samples of a FLAC file, in words; None if none.

    The position of the file is kept.

    Args:
        file: the file; its position is where a decoder of the stated samples has stopped.
        size: its bytes.
        stated: samples that the header states.
    """
    position = file.tell()
    try:
        pieces = Pieces(file, size)
        begin = _begin(pieces)
        if _follows(pieces, max(begin + 4, position - _READ_AHEAD)):
            return "is several FLAC files one after the other"
        last = max(_frame_ends(pieces, begin), default=0)
        if last > stated:
            return f"states {stated:,} samples, but at least {last:,} are there"
    finally:
        file.seek(position)
    return None


def is_chained(file: BufferedReader, size: int) -> bool:
    """Return whether a file is several FLAC files one after the other."""
    pieces = Pieces(file, size)
    return _follows(pieces, _begin(pieces) + 4)


def _begin(pieces: Pieces) -> int:
    """Return where the stream begins; a tag may stand before it."""
    return pieces.find(_STARTS[0][:4], 0)


def _follows(pieces: Pieces, position: int) -> bool:
    """Return whether another stream begins behind a position."""
    return any(pieces.find(start, position) < pieces.size for start in _STARTS)


def _frame_ends(pieces: Pieces, begin: int) -> Iterator[int]:
    """Yield the end, in samples, of each frame that begins near the end of a file."""
    about = pieces.at(begin + 8, 10)
    # The samples of every frame but the last, if the frames are of one size, and most bytes of one.
    frame_samples = int.from_bytes(about[:2], "big")
    longest = int.from_bytes(about[7:10], "big") or _TAIL
    start = max(begin, pieces.size - min(_TAIL, longest + _LONGEST_TAG))
    tail = pieces.at(start, pieces.size - start)
    place = tail.find(b"\xff")
    while place >= 0:
        end = _end_of_frame(tail[place : place + _LONGEST_HEADER], frame_samples)
        if end is not None:
            yield end
        place = tail.find(b"\xff", place + 1)


def _end_of_frame(header: bytes, frame_samples: int) -> int | None:
    """Return the sample behind a frame by the bytes that begin it; None if they are no header."""
    if len(header) < _LONGEST_HEADER or header[1] & 0xFE != 0xF8:
        return None
    number_size = _coded_size(header[4])
    if not number_size:
        return None
    end = 4 + number_size
    code = header[2] >> 4
    samples = _SAMPLES.get(code, 0)
    if code in (6, 7):
        samples = int.from_bytes(header[end : end + code - 5], "big") + 1
        end += code - 5
    end += {12: 1, 13: 2, 14: 2}.get(header[2] & 15, 0)
    if not samples or header[3] & 1 or header[end] != _crc8(header[:end]):
        return None
    number = header[4] & (0xFF >> (number_size + 1) if number_size > 1 else 0x7F)
    for byte in header[5 : 4 + number_size]:
        number = number << 6 | byte & 0x3F
    if header[1] & 1:
        # Frames of varying sizes are numbered by their first sample.
        return number + samples
    return number * frame_samples + samples


def _coded_size(first: int) -> int:
    """Return the bytes of a coded number by its first one, as in UTF-8; 0 if it begins none."""
    ones = 8 - (~first & 0xFF).bit_length()
    if ones == 0:
        return 1
    return ones if 2 <= ones <= 7 else 0


def _crc8(data: bytes) -> int:
    """Return the checksum of a frame's header, x^8 + x^2 + x + 1."""
    value = 0
    for byte in data:
        value = _CRC8[value ^ byte]
    return value


def _remainder(byte: int) -> int:
    for _ in range(8):
        byte = (byte << 1 ^ 0x07 if byte & 0x80 else byte << 1) & 0xFF
    return byte


_CRC8 = tuple(map(_remainder, range(256)))
