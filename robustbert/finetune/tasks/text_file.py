"""Text of task files: UTF-8, with or without a byte order mark; another encoding is named with what converts it."""

from pathlib import Path

from robustbert.data.errors import DataError

_UTF16 = (b"\xff\xfe", b"\xfe\xff")


def read_text(path: Path) -> str:
    """The content of a text file, without a byte order mark; line ends stay as they are.

    DataError where it cannot be read or is not UTF-8. FileNotFoundError where there is no such file.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); the task's own file belongs there") from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if content.startswith(_UTF16):
            raise DataError(f"{path}: is UTF-16; convert it: iconv -f UTF-16 -t UTF-8 {path.name}") from None
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}, line {line}: not UTF-8 ({error.reason} at byte {error.start}); download it again, or if it is a Windows or "
            f"Latin-1 file convert it: iconv -f WINDOWS-1252 -t UTF-8 {path.name}"
        ) from None
    if "\0" in text[:1000]:
        raise DataError(f"{path}: has null characters; it is UTF-16 (convert it: iconv -f UTF-16LE -t UTF-8 {path.name}) or no text")
    return text
