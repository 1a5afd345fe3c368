"""Explain why a sound file cannot be read: the format of the file, and the remedy."""

import shlex
import stat
import unicodedata
from io import BufferedReader
from pathlib import Path

import numpy as np
from jaxtyping import Float

from melpatch.audio.byte_range import ByteRange
from melpatch.audio.ffmpeg_sound import FFmpegError, container_of
from melpatch.errors import AudioError, UnreachableError
from melpatch.faults import is_passing, remedy

CONVERT = "leave it out, or convert it, for example with: ffmpeg -i IN OUT.flac"
COPY_AGAIN = "copy or download it again, or leave it out"

REWRITE = "split it, or rewrite it, for example with: ffmpeg -i IN OUT.wav"

# Float files at integer scale reach 2^31; larger values are damage.
_LOUDEST = 1e10
_LFS_POINTER = "is a Git LFS pointer, not the sound itself"
# Files that are no sound: bytes that they begin with, reason and remedy.
_NO_SOUND = (
    (b"version https://git-lfs", _LFS_POINTER, "run: git lfs pull"),
    (b"<", "is a saved web page or XML text", "download it again from the direct link"),
    (b"PK\x03\x04", "is a zip archive", "unpack it first"),
    (b"\x1f\x8b", "is a gzip archive", "unpack it first"),
    (bytes(64), "begins with nothing but zeros: a transfer broke off", COPY_AGAIN),
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
        raise_passing(path, error)
        reason = f"cannot be reached ({error})"
        if isinstance(error, FileNotFoundError):
            reason = _why_missing(file)
        raise AudioError(path, reason, "check the path") from error
    if stat.S_ISDIR(status.st_mode):
        raise AudioError(path, "is a folder", "give a sound file")
    if not stat.S_ISREG(status.st_mode):
        raise AudioError(path, "is a pipe, device or socket", "give a regular file")
    if status.st_size == 0:
        raise AudioError(path, "is empty (0 bytes)", COPY_AGAIN)


def raise_passing(path: object, error: Exception) -> None:
    """Raise UnreachableError if an error passes and is not the file's, such as too many open files."""
    if isinstance(error, OSError) and is_passing(error):
        reason = f"cannot be read now ({error.strerror})"
        raise UnreachableError(path, reason, remedy(error)) from error


def _why_missing(file: Path) -> str:
    """Return what is missing: the file, what it links to, or only this spelling of its name."""
    if file.is_symlink():
        return f"does not exist (a link leads to {file.readlink()}, which is missing)"
    wanted = _plain(file.name)
    try:
        similar = [entry.name for entry in file.parent.iterdir() if _plain(entry.name) == wanted]
    except OSError:
        similar = []
    if similar:
        return f"does not exist, but {similar[0]!r} does"
    return "does not exist"


def _plain(name: str) -> str:
    """Return a name without case, blanks around it, and ways of composing accents."""
    return unicodedata.normalize("NFC", name).casefold().strip()


def why_unreadable(path: object, file: BufferedReader, error: Exception) -> tuple[str, str]:
    """Return the reason why decoders rejected an open file, and the remedy."""
    file.seek(0)
    head = file.read(512)
    container = container_of(head)
    if container is not None:
        if isinstance(error, FFmpegError):
            reason = f"is {container.name}, which cannot be decoded ({error_text(error)})"
            return reason, f"copy or download it again, or {convert(path)}"
        fix = f"install PyAV with: pip install 'melpatch[formats]', or {convert(path)}"
        return f"is {container.name}, which libsndfile does not decode", fix
    # Web pages and pointers may begin with a byte order mark or blank lines.
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    for signature, reason, fix in _NO_SOUND:
        if text.startswith(signature):
            return reason, fix
    fix = f"leave it out, or {convert(path)}"
    return f"is not sound that libsndfile decodes ({error_text(error)})", fix


def convert(path: object) -> str:
    """Return the command that converts a file, as it can be typed."""
    if not isinstance(path, str | Path):
        return "convert it, for example with: ffmpeg -i IN OUT.flac"
    # A name that begins with a dash would be taken for a flag.
    name = f"./{path}" if str(path).startswith("-") else str(path)
    out = str(Path(name).with_suffix(".flac"))
    if name.startswith("./"):
        out = f"./{out}"
    return f"convert it with: ffmpeg -i {shlex.quote(name)} {shlex.quote(out)}"


def error_text(error: Exception) -> str:
    """Return a decoder's message without its punctuation."""
    text = str(getattr(error, "error_string", error))
    # libsndfile says so of MP3 frames that its decoder does not take.
    if text.startswith("File does not exist"):
        return "its frames cannot be decoded"
    return text.strip().removeprefix("Error : ").rstrip(".")


def first_bad(block: Float[np.ndarray, "sample channel"]) -> int | None:
    """Return the index of the first sample that is NaN, infinite or absurdly large."""
    # Written so that NaN fails too.
    if not block.size or np.abs(block).max() <= _LOUDEST:
        return None
    return int((~(np.abs(block) <= _LOUDEST)).any(axis=1).argmax())


def what_is_bad(values: Float[np.ndarray, " channel"]) -> str:
    """Return what a sample is, of which some channels are no sound."""
    if np.isnan(values).any():
        return "NaN"
    if np.isinf(values).any():
        return "an infinite sample"
    return f"an absurd sample ({values[np.abs(values).argmax()]:.1g})"
