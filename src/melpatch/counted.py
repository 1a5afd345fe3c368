"""Numbers with what they count, in the singular or the plural: ``1 clip``, ``2,400 clips``."""

_ADDS_ES = ("s", "x", "z", "ch", "sh")


def counted(number: int, noun: str) -> str:
    """Return a number and its noun, which is given in the singular, such as ``3 validation clips``."""
    return f"{number:,} {agreeing(number, noun, plural(noun))}"


def agreeing(number: int, singular: str, several: str) -> str:
    """Return the word that goes with a number, such as ``is`` with 1 and ``are`` with others."""
    return singular if number == 1 else several


def plural(noun: str) -> str:
    """Return the plural of a regular noun, such as ``classes`` of ``class``."""
    return f"{noun}es" if noun.endswith(_ADDS_ES) else f"{noun}s"
