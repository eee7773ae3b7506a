"""Which language a text is in: py3langid, whose model comes with it."""

from robustbert.data.text.byte_streams import import_for

_LOOKED_AT_CHARS = 4000  # enough to tell; the time grows with the text


def is_english(text: str) -> bool:
    """Whether the text is most likely English."""
    middle = max(0, (len(text) - _LOOKED_AT_CHARS) // 2)
    return import_for("py3langid", "a corpus of web pages").classify(text[middle : middle + _LOOKED_AT_CHARS])[0] == "en"
