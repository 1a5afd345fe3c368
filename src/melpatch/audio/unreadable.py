"""Explain why a sound file cannot be read: the format of the file, and the remedy."""

import stat
from io import BufferedReader
from pathlib import Path

import soundfile

from melpatch.audio.byte_range import ByteRange
from melpatch.errors import AudioError

CONVERT = "leave it out, or convert it, for example with: ffmpeg -i IN OUT.flac"
COPY_AGAIN = "copy or download it again, or leave it out"

_LFS_POINTER = "is a Git LFS pointer, not the sound itself"
# Files that libsndfile does not decode: offset and bytes of their signature, reason and remedy.
_FOREIGN = (
    (0, b"version https://git-lfs", _LFS_POINTER, "run: git lfs pull"),
    (0, b"<", "is a saved web page or XML text", "download it again from the direct link"),
    (4, b"ftyp", "is MP4 or M4A, which libsndfile does not decode", CONVERT),
    (0, b"\x30\x26\xb2\x75", "is WMA, which libsndfile does not decode", CONVERT),
    (0, b"\x1a\x45\xdf\xa3", "is WebM or Matroska, which libsndfile does not decode", CONVERT),
    (0, b"#!AMR", "is AMR, which libsndfile does not decode", CONVERT),
    (0, b"wvpk", "is WavPack, which libsndfile does not decode", CONVERT),
    (0, b"PK\x03\x04", "is a zip archive", "unpack it first"),
    (0, b"\x1f\x8b", "is a gzip archive", "unpack it first"),
    (0, bytes(64), "begins with nothing but zeros: a transfer broke off", COPY_AGAIN),
)


def require_file(path: str | Path | ByteRange) -> None:
    """Reject everything but regular, non-empty files: opening a pipe or device could block.

    Raises:
        AudioError: there is no such file, or it is empty.
    """
    try:
        file = path.path if isinstance(path, ByteRange) else Path(path)
        status = file.stat()
    except (OSError, ValueError) as error:
        reason = f"cannot be reached ({error})"
        if isinstance(error, FileNotFoundError):
            reason = "does not exist"
        raise AudioError(path, reason, "check the path") from error
    if stat.S_ISDIR(status.st_mode):
        raise AudioError(path, "is a folder", "give a sound file")
    if not stat.S_ISREG(status.st_mode):
        raise AudioError(path, "is a pipe, device or socket", "give a regular file")
    if status.st_size == 0:
        raise AudioError(path, "is empty (0 bytes)", COPY_AGAIN)


def why_unreadable(file: BufferedReader, error: soundfile.LibsndfileError) -> tuple[str, str]:
    """Return the reason why libsndfile rejected an open file, and the remedy."""
    file.seek(0)
    # Web pages and pointers may begin with a byte order mark or blank lines.
    head = file.read(512).removeprefix(b"\xef\xbb\xbf").lstrip()
    for offset, magic, reason, fix in _FOREIGN:
        if head[offset:].startswith(magic):
            return reason, fix
    return f"is not sound that libsndfile decodes ({error_text(error)})", CONVERT


def error_text(error: soundfile.LibsndfileError) -> str:
    """Return libsndfile's message without its punctuation."""
    return str(error.error_string).strip().removeprefix("Error : ").rstrip(".")
