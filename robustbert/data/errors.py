"""The error that every bad file, corpus or source of text ends in."""


class DataError(ValueError):
    """Data cannot be used; the message is one line that names the file, the place in it, and the way out."""


class OtherData(DataError):
    """What is prepared was made of something else than the configuration names: it must not pass for that."""
