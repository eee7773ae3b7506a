"""Templates that stand for no words: boxes, banners, footnotes, requests for a source, settings of the page."""

import re

_NAMES = frozenset(
    name.strip()
    for name in """
    sfn, sfnp, sfnm, sfnmp, efn, efn-ua, efn-la, efn-lr, efn-lg, refn, rp, r, ref, note, ref label, note label, cref, cnote,
    notetag, nbnote, note tag, harv, harvcol, harvcolnb, harvc, harvp, notelist, notelist-ua, reflist, references, refbegin,
    refend, notes, footnotes, #tag:ref, #tag:references, citation, cite, vcite book, vcite journal, google books,
    gutenberg author, librivox author, internet archive author, webarchive, wayback, cbignore, dead link, dmoz, url-wayback,
    authority control, isfdb name, imdb name, imdb title, official website, find a grave, geonames, citation needed, cn,
    fact, cb, when, who, which, whom, by whom, where, why, how, what, clarify, vague, specify, verify source, full,
    page needed, better source, failed verification, dubious, or, original research inline, pov-inline, weasel-inline,
    peacock inline, quantify, examples, full citation needed, unreliable source, unreliable source?, rs, sps,
    primary source inline, third-party inline, update after, update inline, update, as written needed, relevance inline,
    off-topic inline, speculation inline, awkward, ambiguous, contradict-inline, elucidate, expand acronym, disputed,
    according to whom, attribution needed, by who, like whom, sic inline, verification failed, not in source,
    synthesis inline, tone-inline, qualify evidence, inconsistent, clarification needed, cite check, irrelevant citation,
    self-published inline, self-published source, promotion inline, flagicon, flagdeco, flag icon, flagcountry icon,
    flagathlete icon, anchor, anchors, shy, zwj, zwnj, wbr, clear, clr, clearleft, clear left, clear right, -, col-begin,
    col-break, col-end, col-2, col-3, col-4, col-5, colbegin, colend, columns-start, columns-end, columns-list, columns,
    div col, div col end, div end, end, end div, s-start, s-end, toc, toc left, toc right, toc limit, tocleft, tocright,
    toclimit, compact toc, horizontal toc, short description, good article, featured article, coord missing, portal,
    portal bar, portal-inline, subject bar, sister project links, sisterlinks, sister links, commons, commons category,
    commonscat, wiktionary, wikiquote, wikisource, wikibooks, wikispecies, wikinews, wikiversity, wikivoyage, wikimedia,
    wikiatlas, library resources box, main, main article, main articles, details, further, further information, see,
    see also, see also2, about, for, for2, for multi, other uses, otheruses, other people, other places, other people2,
    other uses2, redirect, redirect2, redirect-multi, distinguish, confused, not to be confused with, hatnote, rellink,
    selfref, self-reference link, broader, technical reasons, correct title, lead too short, expand section, empty section,
    more citations needed, refimprove, unreferenced, unreferenced section, multiple issues, cleanup, pov, npov, globalize,
    original research, more footnotes, no footnotes, inconsistent citations, use dmy dates, use mdy dates, engvar, engvarb,
    italic title, lowercase title, lowercase, displaytitle, wrongtitle, bots, nobots, pp, pp-pc, pp-move, protected,
    prone to spam, z148, in use, under construction, stub, unibox, italictitle, listen, audio, multi-listen item,
    external media, image, multiple image, double image, triple image, wide image, tall image, gallery, css image crop,
    panorama, image frame, image label, annotated image, superimpose, chart, location map, legend, legend inline, color box,
    colorbox, clade, family tree, tree chart, graph, weather box, historical populations, us census population, election box,
    unbulleted list, ubl, plainlist, endplainlist, flatlist, endflatlist, unordered list, bulleted list, ordered list,
    collapsible list, tree list, tree list/end, glossary, glossary end, hidden, hidden begin, hidden end, collapse top,
    collapse bottom, navboxes, sidebar, successor, s-bef, s-ttl, s-aft, s-par, s-ppo, s-break, succession box, infobox,
    taxobox, speciesbox, chembox, drugbox, geobox, sort key, hs, ntsh, sort hidden, nts hidden, hid, no more links,
    nomorelinks, disambiguation needed, dn, link needed, increase, decrease, steady, gain, loss, profit, up, down, good icon,
    increasenegative, decreasepositive, nonspecific, ill-wd icon, quote box, quotebox, pull quote, quote frame, side box,
    bar box, bar chart, bar percent, bartable, pie chart, thumbs up, spoken wikipedia, listen image, pronunciation needed,
    wikipedia books, wikipedia book, books-inline, wikisource-inline, osmrelation-inline, commons-inline, citizendium,
    wikidata, wd, qid, interlanguage link icon, cia world factbook link, cia world factbook, eb1911, catholic,
    jewishencyclopedia, 1911, dnb, include-eb, nie, americana, mathworld, sep, iep, planetmath, oeis link, abbrlink, lsj,
    sep entry, facebook, twitter, instagram, youtube, nowrap begin, nowrap end, nowrapbegin, nowrapend, request quotation,
    ·w, respell needed, ipa needed, contains special characters, contains chinese text, contains ipa, special characters,
    refspell, gutenberg, skip to top, starbox, tfd, afd, prod, db, copy edit, copyedit, cleanup rewrite, lead rewrite,
    overly detailed, tone, essay-like,
    """.replace("\n", ",").split(",")
    if name.strip()
)
_KINDS = re.compile(
    r"(?:cite|vcite|infobox|navbox|taxobox|automatic taxobox|subspeciesbox|campaignbox|use |engvar|pp-|r from|r to|s-|sister|"
    r"commons|wikt?i(?!-)|more citations|cleanup|unreferenced|refimprove|citation needed \(|portal|see also|main |further|about |"
    r"other |redirect|for |expand|contains|harvard citation|sfn|efn|toc |col-|div col|adjacent|defaultsort:|displaytitle:|lcsort|"
    r"notelist|reflist|medical|image |audio|gutenberg|imdb|geographic location|weather|climate|family|chart|clade|userbox|user |"
    r"wikiproject|graph:|#tag:|#invoke:(?:citation|navbox|infobox|sidebar|hatnote|main|about|other)|#seo|#coordinates|#babel|__)"
    r"|.*(?: needed|[ -]inline| icon|-stub| sidebar| topics| footer| navbox| infobox| series| succession|/doc|/sandbox)\Z"
)
# A page of one of these only lists what its title may mean.
_DISAMBIGUATION = frozenset(
    name.strip()
    for name in """
    disambiguation, disambig, disamb, dab, geodis, hndis, hndis-cleanup, disambiguation cleanup, school disambiguation,
    hospital disambiguation, letter disambiguation, letter–number combination disambiguation,
    letter-numbercombdisambig, numberdis, roaddis, airport disambiguation, callsigndis, chinese title disambiguation,
    species latin name disambiguation, station disambiguation, mil-unit-dis, biology disambiguation,
    mathematical disambiguation, place name disambiguation, human name disambiguation, begriffsklärung, homonymie,
    desambiguación, desambiguação, disambigua, неоднозначность, багатозначність, пояснение, ujednoznacznienie, dp,
    rozcestník, rozlišovacia stránka, förgrening, täsmennyssivu, peker, flertydig, anlam ayrımı, egyért,
    dezambiguizare, 曖昧さ回避, aimai, 消歧义, 消歧義, 동음이의, trang định hướng, disambig-wp
    """.replace("\n", " ").split(",")
)
_FIRST_NAMES = re.compile(r"\{\{\s*([^{}|\n]+?)\s*(?:\|[^{}]*)?\}\}")


def stands_for_no_words(name: str) -> bool:
    """Whether a template (its name in lower case) leaves nothing in the text of a paragraph."""
    return name in _NAMES or _KINDS.match(name) is not None


def is_disambiguation(wikitext: str) -> bool:
    """Whether a page says of itself that it only tells articles of the same name apart."""
    return "__DISAMBIG__" in wikitext or any(
        match[1].replace("_", " ").lower() in _DISAMBIGUATION for match in _FIRST_NAMES.finditer(wikitext)
    )
