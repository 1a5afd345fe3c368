"""The contract of a target: from a trained run to files that run without melpatch.

A target of one's own is one file, ``targets/NAME.py``, with a class derived from :class:`Target`;
``melpatch export RUN --to NAME`` finds it.
"""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from melpatch.export.source import Source


class Target(ABC):
    """What a run becomes.

    Attributes:
        ending: of the output's name, such as ``.onnx``; empty if the output is a folder.
        files: names of the files in a folder. No folder that holds another is ever replaced.
        takes: the settings of :class:`Source` that it heeds.
    """

    ending: ClassVar[str] = ""
    files: ClassVar[frozenset[str]] = frozenset()
    takes: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def write(self, source: Source, path: Path) -> list[str]:
        """Write the output, and return notes for the user.

        Args:
            source: what is exported.
            path: where to write; nothing is there.

        Raises:
            ConfigError: the run cannot become this; the message says which settings are in the way.
        """
