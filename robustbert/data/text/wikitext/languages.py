"""Names of languages, as {{lang-la|...}} and {{langx|la|...}} show them in English."""

_ROWS = """
aa Afar; af Afrikaans; akk Akkadian; am Amharic; ang Old English; an Aragonese; ar Arabic; arc Aramaic; arz Egyptian Arabic;
as Assamese; ast Asturian; az Azerbaijani; ba Bashkir; bar Bavarian; be Belarusian; bg Bulgarian; bn Bengali; bo Tibetan;
br Breton; bs Bosnian; ca Catalan; ce Chechen; ceb Cebuano; ckb Central Kurdish; co Corsican; cop Coptic; crh Crimean Tatar;
cs Czech; cu Old Church Slavonic; cv Chuvash; cy Welsh; da Danish; de German; dsb Lower Sorbian; dv Maldivian; egy Egyptian;
el Greek; en English; enm Middle English; eo Esperanto; es Spanish; et Estonian; eu Basque; fa Persian; fi Finnish;
fil Filipino; fo Faroese; fr French; frm Middle French; fro Old French; frr North Frisian; fur Friulian; fy West Frisian;
ga Irish; gd Scottish Gaelic; gl Galician; gmh Middle High German; goh Old High German; got Gothic; grc Ancient Greek;
grc-gre Greek; gsw Swiss German; gu Gujarati; gv Manx; ha Hausa; haw Hawaiian; he Hebrew; hi Hindi; hr Croatian;
hsb Upper Sorbian; ht Haitian Creole; hu Hungarian; hy Armenian; ia Interlingua; id Indonesian; ig Igbo; ilo Ilocano;
is Icelandic; it Italian; iu Inuktitut; ja Japanese; jv Javanese; ka Georgian; kk Kazakh; kl Greenlandic; km Khmer; kn Kannada;
ko Korean; ku Kurdish; kw Cornish; ky Kyrgyz; la Latin; lad Judaeo-Spanish; lb Luxembourgish; li Limburgish; lij Ligurian;
lmo Lombard; ln Lingala; lo Lao; lt Lithuanian; lv Latvian; mg Malagasy; mi Māori; mk Macedonian; ml Malayalam; mn Mongolian;
mnc Manchu; mr Marathi; ms Malay; mt Maltese; my Burmese; nah Nahuatl; nan Hokkien; nap Neapolitan; nb Norwegian Bokmål;
nds Low German; ne Nepali; nl Dutch; nn Norwegian Nynorsk; no Norwegian; non Old Norse; nv Navajo; oc Occitan; odt Old Dutch;
om Oromo; or Odia; os Ossetian; ota Ottoman Turkish; pa Punjabi; pap Papiamento; peo Old Persian; phn Phoenician; pi Pali;
pl Polish; pms Piedmontese; ps Pashto; pt Portuguese; qu Quechua; rm Romansh; ro Romanian; rom Romani; ru Russian; rue Rusyn;
rw Kinyarwanda; sa Sanskrit; sc Sardinian; scn Sicilian; sco Scots; sd Sindhi; se Northern Sami; sga Old Irish;
sh Serbo-Croatian; si Sinhala; sk Slovak; sl Slovene; sm Samoan; sn Shona; so Somali; sq Albanian; sr Serbian; st Sotho;
su Sundanese; sux Sumerian; sv Swedish; sw Swahili; syc Classical Syriac; syr Syriac; szl Silesian; ta Tamil; te Telugu;
tg Tajik; th Thai; ti Tigrinya; tk Turkmen; tl Tagalog; tn Tswana; to Tongan; tr Turkish; tt Tatar; ug Uyghur; uk Ukrainian;
ur Urdu; uz Uzbek; vec Venetian; vi Vietnamese; vo Volapük; wa Walloon; wo Wolof; xcl Classical Armenian; xh Xhosa; yi Yiddish;
yo Yoruba; yue Cantonese; zh Chinese; zu Zulu
"""
_NAMES = dict(row.strip().split(" ", 1) for row in _ROWS.replace("\n", " ").split(";"))


def language_name(code: str) -> str:
    """The language of a code, also of one with a script or a region behind it; empty where it is not known."""
    code = code.lower().replace("_", "-")
    return _NAMES.get(code) or _NAMES.get(code.partition("-")[0], "")
