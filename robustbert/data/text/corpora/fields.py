"""The text among the fields of a document: of JSON, of a table's row."""

from robustbert.data.text.records import BadInput, ReaderOptions

DEFAULT_FIELD = "text"
_NUM_NAMED = 20


def text_of(document, options: ReaderOptions, place: str) -> str | BadInput:
    """The text in the field that the options name, of an object as json gives it; a string is its own text."""
    if isinstance(document, str):
        text = document
    else:
        field = options.text_field or DEFAULT_FIELD
        text = field_of(document, field)
        if not isinstance(text, str):
            if text is not None:
                return BadInput(f"{place} has no text in its field `{field}` but {text!r:.40}; mend or drop it")
            return BadInput(no_field(place, field, names_of(document)))
    # Lone surrogates ("\ud800") are legal in JSON and cannot be encoded.
    return text.encode("utf-8", "replace").decode("utf-8")


def field_of(document, field: str):
    """A field's value, None where there is none; `a.b` is a field of that name, or the field b of the object in a."""
    if not isinstance(document, dict):
        return None
    if field in document or "." not in field:
        return document.get(field)
    outer, _, inner = field.partition(".")
    return field_of(document.get(outer), inner)


def names_of(document) -> list[str]:
    """The names that text_field may take for a document, those inside of an object as `a.b`."""
    if not isinstance(document, dict):
        return []
    names = []
    for name, value in document.items():
        names += [f"{name}.{inner}" for inner in names_of(value)] or [name]
    return names


def no_field(place: str, field: str, names: list[str]) -> str:
    """One line about a document without the field: which ones it has, and how to name one."""
    named = f"{', '.join(names[:_NUM_NAMED])}{', ...' if len(names) > _NUM_NAMED else ''}" if names else "none"
    way_out = "name the one that holds it: --text-field NAME (in a run: `text_field`)"
    return f"{place} has no text in a field `{field}` (its fields: {named}); {way_out}"
