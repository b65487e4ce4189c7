"""The errors that a user may meet, each named for what they do next."""


class TickstreamError(Exception):
    """Something went wrong outside the program; the message names what to do."""

    exit_code = 1


class MisuseError(TickstreamError):
    """The command was called with an argument or a file that it cannot take."""

    exit_code = 2


class UnavailableError(TickstreamError):
    """A server or a download that the command needs does not answer."""


class StateError(TickstreamError):
    """A stored state is damaged, or was made by another version or other settings."""


class UncheckedError(TickstreamError):
    """A comparison could not be made: nothing is said about what it would have found."""

    exit_code = 3


class TemporaryError(TickstreamError):
    """A server was away, or somebody else came first: the same command may do it later."""

    exit_code = 75  # EX_TEMPFAIL of sysexits.h


class TooFewError(MisuseError):
    """There are too few rows yet to train or to judge a model."""


class FencedError(TickstreamError):
    """A newer owner has taken the partition; this process must stop at once."""


class ConflictError(TickstreamError):
    """Somebody else changed the same thing meanwhile; look at it and decide again."""


class RefusedError(TickstreamError):
    """A version of a model cannot become active; the one that is active stays."""
