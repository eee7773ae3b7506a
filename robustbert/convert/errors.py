"""The error that every conversion which cannot be done ends in."""


class ConversionError(ValueError):
    """A conversion that cannot be done or did not pass its check; the message is one line, nothing is left behind."""
