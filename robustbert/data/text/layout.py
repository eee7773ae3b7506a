"""What parts the documents of plain text: found in the first lines of its files."""

from collections.abc import Iterable
from dataclasses import dataclass

from robustbert.data.text.corpora.plain import END_OF_TEXT, ends_a_sentence, is_title

_MIN_BLOCKS = 4
_MIN_LINES_PER_BLOCK = 1.5
_MIN_ENDED = 0.7  # of the lines: of hard-wrapped prose a tenth ends with a sentence, of verse a quarter


@dataclass(frozen=True)
class LayoutSigns:
    """What the first lines of a file, or of several, tell: num_blocks: of lines between blank ones."""

    num_lines: int = 0
    num_ended: int = 0  # lines that end where a sentence ends
    num_blocks: int = 0
    num_wide_gaps: int = 0  # two or more blank lines between two blocks
    num_titles: int = 0  # files that begin with a title of WikiText
    num_markers: int = 0  # lines `<|endoftext|>`


def signs_of(lines: list[str]) -> LayoutSigns:
    """The signs of a file that begins with these lines."""
    num_lines = num_ended = num_blocks = num_wide_gaps = num_blank = num_markers = 0
    begins_with_title = has_section = False
    for line in lines:
        if not line or line.isspace():
            num_blank += 1
            continue
        if num_lines == 0:
            begins_with_title = is_title(line)
        if num_lines == 0 or num_blank:
            num_blocks += 1
            num_wide_gaps += num_lines > 0 and num_blank > 1
        has_section |= line.lstrip().startswith("= = ")
        num_lines, num_blank = num_lines + 1, 0
        num_ended += ends_a_sentence(line)
        num_markers += line.strip() == END_OF_TEXT
    return LayoutSigns(num_lines, num_ended, num_blocks, num_wide_gaps, int(begins_with_title and has_section), num_markers)


def find_layout(signs: Iterable[LayoutSigns]) -> str:
    """The layout, one of plain.LAYOUTS, of files with these signs taken together.

    A line `<|endoftext|>` is GPT-2's end of a document and nothing else.

    One blank line parts documents where lines already part sentences (BERT's input) or paragraphs (CC-100), so that a
    blank line must part more than that: nowhere two blank lines, several lines between blank ones, and nearly each of them
    ends with a sentence. What is not told apart for certain (a book, or articles, with a blank line after each paragraph)
    is taken for two-blank-lines, in which a single document is worth a remark.
    """
    signs = list(signs)
    lines, ended, blocks = (sum(getattr(s, name) for s in signs) for name in ("num_lines", "num_ended", "num_blocks"))
    if any(s.num_markers for s in signs):
        return "endoftext"
    if signs and all(s.num_titles for s in signs if s.num_lines):
        return "wikitext" if lines else "two-blank-lines"
    if any(s.num_wide_gaps for s in signs):
        return "two-blank-lines"
    several = blocks >= _MIN_BLOCKS and lines >= _MIN_LINES_PER_BLOCK * blocks
    return "blank-line" if several and ended >= _MIN_ENDED * lines else "two-blank-lines"
