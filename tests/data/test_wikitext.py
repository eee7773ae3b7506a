"""Wikitext gives the text that MediaWiki shows: templates within sentences, apostrophes, links, what is no prose.

What a template gives was looked up in its documentation, and in renderings by Wikipedia's own MediaWiki (2023).
"""

import pytest

from robustbert.data.preparation.not_taken import NotTaken, incomplete_summary, summary_of
from robustbert.data.text.corpora.wikipedia import extract, running_text
from robustbert.data.text.readers import extract_pieces, find_source, read_records
from robustbert.data.text.records import Incomplete, Lacking, LeftOut, Piece, Record, ReaderOptions
from robustbert.data.text.wikitext.apostrophes import without_quotes
from robustbert.data.text.wikitext.articles import Site, article_text
from tests.data.corpus_files import wikipedia_xml

pytest.importorskip("mwparserfromhell")

CONVERTED = {
    "{{convert|1200|m|ft}}": "1,200 metres (3,900 ft)",
    "{{convert|1000|km2}}": "1,000 square kilometres (390 sq mi)",
    "{{cvt|100|km|mi}}": "100 km (62 mi)",
    "{{convert|0.5|oz}}": "0.5 ounces (14 g)",
    "{{convert|9|acre}}": "9 acres (3.6 ha)",
    "{{convert|13|x|5|m|ft|abbr=on}}": "13 m × 5 m (43 ft × 16 ft)",
    "{{convert|24|*|12|*|20|in|cm|adj=on}}": "24×12×20-inch (61×30×51 cm)",
    "{{convert|7700|ha|acre|sigfig=2|adj=on}}": "7,700-hectare (19,000-acre)",
    "{{convert|0.3|m|ft|sigfig=1|abbr=on}}": "0.3 m (1 ft)",
    "{{convert|10|-|40|m|ft}}": "10–40 metres (33–131 ft)",
    "{{convert|10|to|30|km|mi}}": "10 to 30 kilometres (6.2 to 18.6 mi)",
    "{{convert|5|ft|11|in|cm}}": "5 feet 11 inches (180 cm)",
    "{{convert|1.8|m|ftin}}": "1.8 metres (5 ft 11 in)",
    "{{convert|3|mi|km|adj=mid|-long}}": "3-mile-long (4.8 km)",
    "{{convert|35|C}}": "35 °C (95 °F)",
    "{{convert|-40|F}}": "−40 °F (−40 °C)",
    "{{convert|63650|lb|kg|order=flip}}": "28,870 kilograms (63,650 lb)",
    "{{convert|860|nmi|km mi|-1}}": "860 nautical miles (1,590 km; 990 mi)",
    "{{convert|44|e6acre|e6ha|abbr=off}}": "44 million acres (18 million hectares)",
    "{{convert|5+1/2|in|mm}}": "5 1/2 inches (140 mm)",
    "{{convert|106,400,000|km2|sqmi}}": "106,400,000 square kilometres (41,100,000 sq mi)",
    "{{convert|7|furlongs per fortnight|m/s}}": "7 furlongs per fortnight",  # no such unit in the table: as written
}
SHOWN = {
    "It has {{formatnum:5024279}} people": "It has 5,024,279 people",
    "H{{sub|2}}O, SO<sub>4</sub><sup>2−</sup>, {{chem|H|2|O}}": "H2O, SO42−, H2O",
    "3×10<sup>8</sup> m<sup>2</sup> and {{val|6.022|e=23|u=mol}}": "3×10^8 m2 and 6.022×10^23 mol",
    "{{lang|fr|bonjour}}, {{lang-la|felis}}, {{langx|grc|λόγος}}": "bonjour, Latin: felis, Ancient Greek: λόγος",
    "{{lang-ar|وقعة|Waqʿat}} {{transl|ru|Moskva}}": "Arabic: وقعة, romanized: Waqʿat Moskva",
    "{{nowrap|2 m}} {{small|a}} {{abbr|Mr.|Mister}} {{math|1=a = b}}": "2 m a Mr. a = b",
    "{{circa|1375}} {{c.}} 1400 {{frac|1|2}} {{frac|1|3|4}}": "c. 1375 c. 1400 1/2 1 3/4",
    "{{As of|2011|07}}, {{as of|2012|lc=on}}": "As of July 2011, as of 2012",
    "{{birth date|1998|5|3}} {{start date|1998|5|3|df=y}} {{dts|2001|2}}": "May 3, 1998 3 May 1998 February 2001",
    "{{IPAc-en|ˈ|b|ɛ|k|ə|r|z}} {{IPA-id|ˈsɔrɡa|}} {{IPA|/æ/}}": "/ˈbɛkərz/ [ˈsɔrɡa] /æ/",
    "{{HMS|Iveston|M1151|6}}, {{USS|Enterprise|CVN-65}}, {{sclass2|250t|torpedo boat|0}}": (
        "HMS Iveston, USS Enterprise (CVN-65), 250t-class"
    ),
    "{{GBP|170&nbsp;million|link=yes}} {{USD|5}} {{€|1200}} {{ordinal|22}}": "£170 million US$5 €1,200 22nd",
    "{{ ill | Glenn M. Shea | WD = Q22105609 }} {{nihongo|Tokyo|東京|Tōkyō}}": "Glenn M. Shea Tokyo (東京, Tōkyō)",
    "{{hlist|a|b}} {{'}}tis 5{{nbsp}}m 1{{ndash}}2{{snd}}x {{pi}}": "a · b 'tis 5 m 1–2 – x π",
    "{{nowrap|{{convert|5|km|mi}} in {{lang|de|[[Köln|Cöln]]}}}}": "5 kilometres (3.1 mi) in Cöln",
    "{{{1|default}}} {{{{{x|lc}}}:ABC}} {{#if: a | yes | no}} {{#if: | yes | no}}": "default abc yes no",
    "He{{efn|a note}} came{{sfn|Smith|2000|p=3}} home.{{citation needed|date=May 2020}} {{coord|1|2|display=title}}": "He came home.",
    "{{quote|To be.|Hamlet}}": "To be.",
    "a <math>x</math>, <math>\\pi</math> <chem>H2O</chem>": "a x, π H2O",
}
MARKUP = {
    "The ''Iliad'''s hero": "The Iliad's hero",  # odd numbers of bold and italics: one bold is an apostrophe and italics
    "A l'''x'' de": "A l'x de",
    "''''quoted'''' and '''''both'''''": "'quoted' and both",
    "'''foo''''bar''<nowiki/>'' and [[Lista d''e paise]]": "foo'bar and Lista d''e paise",
    "<s>a <span><u>b</span></u> &lt;s&gt; c&apos;s": "a b <s> c's",
    "[[AT&amp;T]], [[Q|R&amp;D &mdash; x]], &#39;&#39;q&#39;&#39;": "AT&T, R&D — x, ''q''",
    "[[Foo (bar)|Foo]]s [[:Category:X]] [[fr:Chat]] [[doi:10.1|paper]]": "Foos Category:X paper",
    "<nowiki>{{x}} [[cat]] ''&amp;''</nowiki>[[a{{!}}b]]": "{{x}} [[cat]] ''&''b",
    "[[Bild:a.jpg|thumb|A {{lang|fr|x}} [[b]]]][[Категория:Градове]][[Catégorie:Ville]][[Archivo:x.png]]T.": "T.",
    "__NOTOC____KEIN_INHALTSVERZEICHNIS__Text.": "Text.",
    "Text<ref name=a /> more<ref>{{cite|x=[[a|b]]}}</ref>.<gallery>\nFile:x.jpg|cap\n</gallery>": "Text more.",
    "A.<ul><li>x<ul><li>in</li></ul></li></ul><table><tr><td><table><td>in</td></table></td></tr></table>B.": "A.\n\nB.",
    "A.<blockquote>Quoted.</blockquote>B.": "A.\n\nQuoted.\n\nB.",
    "{| class=x\n! a\n|-\n| {{convert|5|km}}\n|}\nText {{!}} pipe.": "Text | pipe.",
}


@pytest.mark.parametrize("wikitext", [*CONVERTED, *SHOWN, *MARKUP])
def test_wikitext_gives_what_mediawiki_shows(wikitext):
    shown = (CONVERTED | SHOWN | MARKUP)[wikitext]
    assert article_text(wikitext) == (shown, 0, [])


def test_the_case_of_inline_templates(shared_data):
    wikitext = (shared_data.parent / "cases" / "wikipedia_inline_templates" / "wikitext.txt").read_text()
    assert running_text(wikitext) == (
        "The lake lies at 1,200 metres (3,900 ft) and covers 40 square kilometres (15 sq mi). It has 5,024,279 visitors. H2O is "
        "clear, and bonjour is a greeting. He is 2 m tall."
    )


def test_a_sentence_that_lacks_words_is_counted_once_and_a_block_not_at_all():
    wikitext = (
        "{{Unknown box\n| a = 1\n}}\n{{Unknown banner|x}}\n'''Cat''' is {{weird|x}} an {{odd}} animal. It {{cn}} purrs.\n\n"
        "Its mass is <math>\\frac{m}{2}</math>.\n\n== References ==\n{{weird|y}} x\n"
    )
    text, num_lacking, names = article_text(wikitext)
    assert text == "Cat is an animal. It purrs.\n\nIts mass is."
    assert num_lacking == 2 and names == ["Weird", "Odd", "<math>"]


def test_counts_of_lacking_sentences_flow_into_the_manifest_and_are_bounded(tmp_path):
    record = Record("Cat\nThe cat {{weird}} sat. The dog ran.", "x.xml: page 'Cat'", kind="en")
    assert extract(record, ReaderOptions()) == Incomplete("The cat sat. The dog ran.", Lacking(1, ("Weird",)))
    (tmp_path / "x.xml").write_text(wikipedia_xml())
    source = find_source(str(tmp_path / "x.xml"), "wikipedia")
    pieces = list(extract_pieces(source, record, 1000))
    assert pieces == [Piece("The cat sat. The dog ran.", True), Lacking(1, ("Weird",))]
    not_taken = NotTaken("stop", print)
    not_taken.add(pieces[1])
    state = not_taken.to_dict()
    continued = NotTaken("stop", print, state)
    continued.add(Lacking(2, ("Weird", "Odd")))
    assert state == {"incomplete_sentences": 1, "missing_words_of": {"Weird": 1}}, (
        "a state is not changed behind its writer's back"
    )
    for number in range(5000):
        continued.add(Lacking(1, (f"Name {number}",)))
    manifest = continued.for_manifest()
    assert manifest["incomplete_sentences"] == 5003 and len(manifest["missing_words_of"]) == 20
    assert manifest["missing_words_of"]["Weird"] == 2 and len(continued.to_dict()["missing_words_of"]) <= 2000
    assert incomplete_summary(manifest, 10006).startswith("5,003 sentences (50.00%) lack words of templates or formulas")
    assert summary_of(manifest) == "" and incomplete_summary({}) == ""


def test_a_dump_names_its_own_namespaces_and_its_language(tmp_path):
    page = "Text [[Xfile:a.jpg|thumb|caption]][[Kategori:b]] {{formatnum:1234567}} {{lang-en|cat}}.[[Xcat:c]]"
    xml = (
        '<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" version="0.11" xml:lang="de"><siteinfo><namespaces>'
        '<namespace key="6" case="first-letter">Xfile</namespace><namespace key="14" case="first-letter">Xcat</namespace>'
        '<namespace key="0" case="first-letter" /><namespace key="1">Talk</namespace></namespaces></siteinfo>'
        f"<page><title>T</title><ns>0</ns><revision><text>{page}</text></revision></page>"
        "<page><title>R</title><ns>0</ns><revision><text>#WEITERLEITUNG [[T]]</text></revision></page></mediawiki>"
    )
    (tmp_path / "x.xml").write_text(xml)
    items = [item for _, item in read_records([find_source(str(tmp_path / "x.xml"), "wikipedia")], [1000])]
    assert extract(items[0], ReaderOptions()) == "Text 1.234.567 cat."
    assert items[1:] == [LeftOut("redirects")]
    assert Site.parse(items[0].kind) == Site("de", ("Xfile", "Xcat"))


@pytest.mark.parametrize(
    "template", ["{{disambiguation}}", "{{Disambig|geo}}", "{{Begriffsklärung}}", "{{hndis|Ada}}", "__DISAMBIG__"]
)
def test_disambiguation_pages_are_left_out(template):
    record = Record(f"Ada\n'''Ada''' may refer to:\n* [[Ada Lovelace]]\n{template}", "x", kind="en")
    assert extract(record, ReaderOptions()) == LeftOut("disambiguation pages")


def test_the_title_stands_for_its_magic_word():
    assert article_text("'''{{PAGENAME}}''' is a town.", "Aba").text == "Aba is a town."


def test_apostrophes_are_read_line_by_line():
    assert without_quotes("''a\nb'' c '''d'''\nit's") == "a\nb c d\nit's"


def test_braces_of_any_kind_end():
    for wikitext in (
        "{{" * 200 + "a|b=" + "}}" * 150,
        "[[" * 300 + "{{x|" * 300,
        "{|\n" * 99 + "|}\n" * 9,
        "{{{{{{{a}}}}}}}",
        "{{a|[[b}}c]]",
    ):
        article_text(wikitext)
    assert article_text("{{unclosed. The {{nowrap|end}}").text == "unclosed. The end"
