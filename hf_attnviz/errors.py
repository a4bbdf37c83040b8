"""Every error a user can meet. Each says what was expected, what came, and what to do, in English and in Chinese."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hf_attnviz.language import Text


class AttnvizError(Exception):
    """The base of all our errors: catch this one to catch them all.

    The one argument is the message in both languages; ``str(error)`` gives it in the language chosen when it is asked.
    """

    if TYPE_CHECKING:

        def __init__(self, message: Text) -> None: ...

    def __str__(self) -> str:  # said here, for OSError and ImportError say it in ways of their own
        return str(self.args[0]) if len(self.args) == 1 else super().__str__()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"


class ArgumentError(AttnvizError, ValueError):
    """An argument has a value that means nothing here."""


class ShapeError(ArgumentError):
    """A tensor has another shape or dtype than the function works on."""


class UnknownNameError(AttnvizError, LookupError):
    """A name that is not on the list; the message carries the list."""


class UnknownStackError(UnknownNameError, AttributeError):
    """The trace holds no such stack (an AttributeError too, so that ``hasattr(trace, "cross")`` works)."""


class UnknownValueError(UnknownNameError, AttributeError):
    """Nothing of that name was reduced (an AttributeError too, so that ``hasattr(reduced, "entropy")`` works)."""


class ModelError(AttnvizError, ValueError):
    """A model that cannot be loaded, or that we refuse to load."""


class CaptureError(AttnvizError, RuntimeError):
    """Attention could not be captured as it ran."""


class NothingCapturedError(CaptureError):
    """The block ran and no attention was seen in it."""


class ProofError(CaptureError):
    """A map could not be proved to be what the kernel computed, so it is not handed out."""


class NotUnderstoodError(CaptureError):
    """A kernel call that the pass over tiles does not understand; it goes the slow way."""


class NotKeptError(AttnvizError, LookupError):
    """Something was asked for that ``keep`` did not keep."""


class MemoryBudgetError(CaptureError, MemoryError):
    """What ``keep`` asks for takes more memory than it may; the message says how much, and what would take less."""


class TraceFileError(AttnvizError, ValueError):
    """A file that is no trace of ours, a damaged one, or one from a newer version."""


class SaveError(AttnvizError, OSError):
    """A file could not be written; what stood there before stands there still."""


class MissingPackageError(AttnvizError, ImportError):
    """An optional package is not installed; the message carries the command that installs it."""


class SlowerWarning(UserWarning):
    """Something works as asked, and slower than it could; the message says why and what to do."""


def listed(names: Iterable[object], none: str = "none") -> str:
    """Names for the end of an error message: ``a, b, c``, or ``none`` (in Chinese: ``listed(names, "无")``)."""
    return ", ".join(str(name) for name in names) or none
