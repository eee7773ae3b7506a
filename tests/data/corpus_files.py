"""Small files of every kind of corpus, as people have them; made by the tests."""

import bz2
import io
import lzma
import tarfile
from pathlib import Path

_ENGLISH = (
    "The minister said on Monday that the new bridge over the river would open in the spring, after three years of delay.",
    "People who live in the old town have waited for it for a long time, and many of them doubt that it will be ready.",
)
_GERMAN = (
    "Der Minister sagte am Montag, dass die neue Brücke über den Fluss im Frühling eröffnet werde, nach drei Jahren.",
    "Die Menschen in der alten Stadt haben lange darauf gewartet, und viele zweifeln, dass sie fertig wird.",
)
ENGLISH_ARTICLE, GERMAN_ARTICLE = "\n".join(_ENGLISH), "\n".join(_GERMAN)

WIKITEXT = """{{Short description|An animal}}
{{Infobox cat
| name = {{lang|fr|Chat}}
}}
[[File:Cat.jpg|thumb|A [[cat]] asleep]]
The '''cat''' ({{lang-la|felis}}), or [[house cat|domestic cat]],<ref name="a">{{cite book|title=X}} p. 3</ref> is a [[mammal]]
of the family&nbsp;''[[Felidae]]''.<ref name="b"/><!-- really -->

{| class="wikitable"
! A !! B
|-
| one || {{nested|{{deep}}}}
{|
| inner
|}
|}
== History ==
Cats were tamed in [http://example.org/east the Near East] {{when}}.
* an item of a list

== See also ==
Not prose.
=== Below ===
Not prose either.
== Names ==
It is called <nowiki>[[cat]]</nowiki>, H<sub>2</sub>O and {{unclosed.
[[Category:Cats]]
[[de:Hauskatze]]
"""
CAT = (
    "The cat (Latin: felis), or domestic cat, is a mammal of the family Felidae.\n\n"
    "Cats were tamed in the Near East.\n\n"
    "It is called [[cat]], H2O and unclosed."
)


def _page(title: str, text: str, namespace: int = 0, redirect: str = "") -> str:
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return (
        f"<page><title>{title}</title><ns>{namespace}</ns><id>1</id>{redirect}<revision><id>2</id>"
        f'<model>wikitext</model><text bytes="1" xml:space="preserve">{escaped}</text></revision></page>\n'
    )


def wikipedia_xml(num_more: int = 0) -> str:
    """A dump of MediaWiki: an article, a redirect, a talk page, another article, and num_more short ones."""
    pages = [
        _page("Cat", WIKITEXT),
        _page("Kitty", "#REDIRECT [[Cat]]", redirect='<redirect title="Cat" />'),
        _page("Talk:Cat", "I like it.", namespace=1),
        _page("Dog", "The '''dog''' is a pet.\n\nIt barks."),
        _page("Only a list", "* one\n* two"),
        *(_page(f"Town {i}", f"'''Town {i}''' is a town with {i} people. It lies on a river.") for i in range(num_more)),
    ]
    info = "<siteinfo><sitename>Wikipedia</sitename><namespaces><namespace key='0'/></namespaces></siteinfo>"
    return f'<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" version="0.11">{info}{"".join(pages)}</mediawiki>'


def html_page(paragraphs: tuple[str, ...]) -> bytes:
    """A page with an article among what pages have."""
    body = "".join(f"<p>{paragraph}</p>" for paragraph in paragraphs)
    return (
        "<!DOCTYPE html><html><head><meta charset='utf-8'><title>News</title><script>var x = 1;</script></head><body>"
        "<nav><ul><li><a href='/'>Home</a></li><li><a href='/news'>All the news</a></li></ul></nav>"
        f"<article>{body}</article><footer>Copyright, all rights reserved</footer></body></html>"
    ).encode()


def warc(zipped: bool = True) -> bytes:
    """A crawl: English (2017-03-01), German, an image, a page that is not there, English again (2018-06-01)."""
    from warcio.statusandheaders import StatusAndHeaders
    from warcio.warcwriter import WARCWriter

    content = io.BytesIO()
    writer = WARCWriter(content, gzip=zipped)
    writer.write_record(writer.create_warcinfo_record("news.warc.gz", {"software": "a test"}))
    for name, status, kind, payload, day in (
        ("a", "200 OK", "text/html; charset=UTF-8", html_page(_ENGLISH), "2017-03-01"),
        ("b", "200 OK", "text/html", html_page(_GERMAN), "2017-03-02"),
        ("c", "200 OK", "image/png", b"\x89PNG", "2017-03-02"),
        ("d", "404 Not Found", "text/html", html_page(_ENGLISH), "2017-03-02"),
        ("e", "200 OK", "text/html", html_page(_ENGLISH[::-1]), "2018-06-01"),
    ):
        http = StatusAndHeaders(status, [("Content-Type", kind)], protocol="HTTP/1.1")
        record = writer.create_warc_record(
            f"http://news.example/{name}",
            "response",
            payload=io.BytesIO(payload),
            http_headers=http,
            warc_headers_dict={"WARC-Date": f"{day}T10:00:00Z"},
        )
        writer.write_record(record)
    return content.getvalue()


def wet(texts: list[str]) -> bytes:
    """Common Crawl's texts, as its WET files have them."""
    from warcio.warcwriter import WARCWriter

    content = io.BytesIO()
    writer = WARCWriter(content, gzip=True)
    for number, text in enumerate(texts):
        record = writer.create_warc_record(
            f"http://web.example/{number}", "conversion", payload=io.BytesIO(text.encode()), warc_content_type="text/plain"
        )
        writer.write_record(record)
    return content.getvalue()


def tar_of(files: dict[str, bytes]) -> bytes:
    """A tar of these files."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return content.getvalue()


def open_web_text() -> bytes:
    """The archive of OpenWebText: a tar of subsets, each an xz'd tar of texts; one subset is a single text."""
    first = tar_of({"0001-a.txt": b"One.\n\n\n\nStill one.", "0002-b.txt": "Zwei, żółw.".encode()})
    second = tar_of({"0003-c.txt": b"Three."})
    return tar_of(
        {
            "openwebtext/urlsf_subset00-1_data.xz": lzma.compress(first),
            "openwebtext/urlsf_subset01-1_data.xz": lzma.compress(second),
            "openwebtext/one.xz": lzma.compress(b"Four."),
        }
    )


def write_parquet(path: Path, texts: list, column: str = "text") -> None:
    """A parquet file with a column of texts and another one."""
    import pyarrow
    from pyarrow import parquet

    table = pyarrow.table({"url": [f"http://x/{i}" for i in range(len(texts))], column: texts})
    parquet.write_table(table, path, row_group_size=2)


def write_dump(path: Path, num_more: int = 0) -> None:
    """The dump of wikipedia_xml, as .bz2 where the name says so."""
    content = wikipedia_xml(num_more).encode()
    path.write_bytes(bz2.compress(content) if path.suffix == ".bz2" else content)
