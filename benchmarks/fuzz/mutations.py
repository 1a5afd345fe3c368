"""How bytes, numbers and text are damaged; a fuzzer adds what its format needs."""

import random
import string

NUMBERS = (
    0,
    -1,
    1,
    2,
    255,
    2**15,
    2**31 - 1,
    2**31,
    2**32,
    2**40,
    2**63 - 1,
    2**63,
    -(2**63),
    10**30,
    10**400,
    0.0,
    -0.0,
    1e-320,
    1e308,
    -1e308,
    float("inf"),
    float("-inf"),
    float("nan"),
)
"""Numbers at which programs break."""
TEXTS = (
    "",
    " ",
    ":",
    "::",
    "none",
    "nan",
    "inf",
    "-1",
    "1e999",
    "9" * 400,
    "a" * 5000,
    "é\u202e\u0000",
    "line\nbreak",
    "..",
    "../../x",
    "/dev/null",
    "/",
    "os:system",
    "..x:y",
    "subprocess:run",
    "%s%n{0}",
    "-h",
    "\ud800",
)
"""Texts at which programs break; the last is no Unicode."""


def damaged(rng: random.Random, data: bytes) -> tuple[bytes, str]:
    """Return damaged bytes, and in words how."""
    kind = rng.choice(
        ("flip", "flip", "cut", "drop", "insert", "repeat", "blank", "number", "swap")
    )
    at = rng.randrange(len(data) + 1)
    length = min(1 << rng.randrange(14), len(data) - at)
    inner = data[at : at + length]
    match kind:
        case "flip":
            flipped = bytearray(data)
            for _ in range(1 << rng.randrange(6)):
                if flipped:
                    flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
            return bytes(flipped), "bits flipped"
        case "cut":
            return data[:at], f"cut to {at} of {len(data)} bytes"
        case "drop":
            return data[:at] + data[at + length :], f"{length} bytes dropped at {at}"
        case "insert":
            added = rng.randbytes(1 << rng.randrange(10))
            return data[:at] + added + data[at:], f"{len(added)} bytes inserted at {at}"
        case "repeat":
            return data[:at] + inner + inner + data[at + length :], f"{length} repeated at {at}"
        case "blank":
            blank = bytes([rng.choice((0, 255, 10, 32))]) * length
            return data[:at] + blank + data[at + length :], f"{length} bytes blanked at {at}"
        case "number":
            size = rng.choice((1, 2, 4, 8))
            number = rng.choice((0, 1, 127, 128, 255, 2**16 - 1, 2**31 - 1, 2**32 - 1, 2**63 - 1))
            order = rng.choice(("little", "big"))
            packed = (number % (1 << 8 * size)).to_bytes(size, order)
            return data[:at] + packed + data[at + size :], f"{number} written at {at}"
        case _:
            half = inner[length // 2 :] + inner[: length // 2]
            return data[:at] + half + data[at + length :], f"{length} bytes swapped at {at}"


def odd_value(rng: random.Random) -> object:
    """Return a number, text, list or table that is rarely what is expected."""
    kind = rng.randrange(6)
    if kind <= 1:
        return rng.choice(NUMBERS)
    if kind <= 3:
        return rng.choice(TEXTS)
    if kind == 4:
        return rng.choice((True, False, None, [], {}, [[]], {"name": 1}, {"": {}}, [None], ["x"]))
    return nested(rng)


def shown(value: object) -> str:
    """Return a value in words, cut to what fits on a line."""
    try:
        return repr(value)[:60]
    except (ValueError, RecursionError):
        return f"a {type(value).__name__} that cannot be shown"


def nested(rng: random.Random) -> object:
    """Return lists or tables within each other, up to 1,000 deep."""
    value: object = rng.choice(("x", 1, 1.5))
    within_list = rng.random() < 0.5
    for _ in range(rng.choice((2, 20, 1000))):
        value = [value] if within_list else {"name": value}
    return value


def odd_text(rng: random.Random, length: int = 20) -> str:
    """Return printable text of up to a length."""
    return "".join(rng.choices(string.printable, k=rng.randrange(length)))
