"""Words for numbers, in the languages of `Bm25Settings`.

They are in the form that `llmpipe.words.bare` returns. A word that means something else in another
of these languages is left out if we know of it: *due* is Italian for two, *once* Spanish for
eleven, *neuf* French for nine and new; *dez* and *sept* are also months.
"""

from __future__ import annotations

SPACELESS = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
"""Letters of scripts that put no space between digits and words."""


def numbered(first: int, *lines: str) -> dict[str, int]:
    """Map the words of each line to consecutive numbers from ``first``.

    A `-` skips a number without a word.
    """
    return {word: n for line in lines for n, word in enumerate(line.split(), first) if word != "-"}


_UNITS = numbered(
    2,
    "two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
    " seventeen eighteen nineteen twenty",
    "zwei drei vier funf sechs sieben acht neun zehn - zwolf dreizehn vierzehn funfzehn sechzehn"
    " siebzehn achtzehn neunzehn zwanzig",
    "deux trois quatre cinq six - huit - dix - douze treize quatorze quinze seize",
    "- tres cuatro cinco seis siete ocho nueve diez - doce trece catorce quince dieciseis"
    " diecisiete dieciocho diecinueve veinte",
    "- tre quattro cinque - sette - nove dieci undici dodici tredici quattordici quindici sedici"
    " diciassette diciotto diciannove venti",
    "dois - quatro cinco seis sete oito nove - - doze treze quatorze quinze dezesseis"
    " dezessete dezoito dezenove vinte",
    "twee drie vier vijf zes zeven acht negen tien - twaalf dertien veertien vijftien zestien"
    " zeventien achttien negentien twintig",
    "tva tre fyra fem - sju atta nio - elva tolv tretton fjorton femton sexton sjutton arton nitton"
    " tjugo",
    "- tre - fem seks syv otte - - elleve tolv tretten fjorten femten seksten sytten atten"
    " nitten tyve",
    "- - - - - sju atte",
    "два три четыре пять шесть семь восемь девять десять одиннадцать двенадцать",
    "iki uc - bes alti yedi sekiz dokuz - - oniki",
)
_TENS = {
    word: 10 * n
    for word, n in numbered(
        2,
        "twenty thirty forty fifty sixty seventy eighty ninety hundred",
        "zwanzig dreissig vierzig funfzig sechzig siebzig achtzig neunzig hundert",
        "vingt trente quarante cinquante soixante",
        "veinte treinta cuarenta cincuenta sesenta setenta ochenta noventa cien",
        "venti trenta quaranta cinquanta sessanta settanta ottanta novanta",
        "vinte trinta quarenta cinquenta sessenta setenta oitenta noventa cem",
        "twintig dertig veertig vijftig zestig zeventig tachtig negentig honderd",
        "tjugo trettio fyrtio femtio sextio sjuttio attio nittio hundra",
        "tyve tretti forti femti seksti sytti atti nitti hundre",
        "двадцать тридцать сорок пятьдесят шестьдесят семьдесят восемьдесят девяносто сто",
        "yirmi otuz - elli altmis yetmis seksen doksan yuz",
    ).items()
}
_ORDINALS = numbered(
    2,
    "- third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth",
    "zweite dritte vierte funfte sechste siebte achte neunte zehnte",
    "zweiten dritten vierten funften sechsten siebten achten neunten zehnten",
    "zweiter dritter vierter funfter sechster siebter achter neunter zehnter",
    "deuxieme troisieme quatrieme cinquieme sixieme septieme huitieme neuvieme dixieme",
    "- tercer - quinto sexto septimo octavo noveno decimo",
    "- tercera cuarta - - septima octava novena decima",
    "- terceiro - quinto sexto setimo oitavo nono decimo",
    "- terzo - quinto sesto settimo ottavo nono decimo",
    "tweede derde vierde vijfde zesde zevende achtste negende tiende",
    "второй третий четвертый пятый шестой седьмой восьмой девятый десятый",
)
_REPEATED = numbered(2, "twice thrice", "zweimal dreimal viermal funfmal", "tweemaal driemaal")
_OTHER_SCRIPTS = numbered(
    2,
    "اثنان ثلاثه اربعه خمسه سته سبعه ثمانيه تسعه عشره",
    "اثنين ثلاث اربع خمس ست سبع ثماني تسع عشر",
    "שניים שלושה ארבעה חמישה שישה שבעה שמונה תשעה עשרה",
    "שתיים שלוש ארבע חמש שש שבע - תשע עשר",
    "שני",
    "שתי",
    "दो तीन चार पांच छह सात आठ नौ दस",
)


def _joined(units: str, joint: str, tens: str, hundred: str, thousand: str) -> dict[str, int]:
    """Return the numbers that a language writes as one word: *fünfundzwanzig*, *dreihundert*."""
    named = numbered(1, units)
    return {
        **{
            f"{unit}{joint}{ten}": n + _TENS[ten]
            for unit, n in named.items()
            for ten in tens.split()
        },
        **{f"{unit}{hundred}": n * 100 for unit, n in named.items()},
        **{f"{unit}{thousand}": n * 1000 for unit, n in named.items()},
    }


CARDINALS = {
    **_UNITS,
    **_TENS,
    **_REPEATED,
    **_OTHER_SCRIPTS,
    **_joined(
        "ein zwei drei vier funf sechs sieben acht neun",
        "und",
        "zwanzig dreissig vierzig funfzig sechzig siebzig achtzig neunzig",
        "hundert",
        "tausend",
    ),
    **_joined(
        "een twee drie vier vijf zes zeven acht negen",
        "en",
        "twintig dertig veertig vijftig zestig zeventig tachtig negentig",
        "honderd",
        "duizend",
    ),
    **dict.fromkeys(("dozen", "dutzend", "douzaine", "docena", "dozzina"), 12),
    **dict.fromkeys(("thousand", "tausend", "тысяча"), 1000),
}
"""Numbers by name. *One* is left out: it is an article in many languages."""
NUMERALS = {**CARDINALS, **_ORDINALS}
"""Numbers and ordinals by name: *third*."""
ACCENTED = {"dört": " 4 ", "très": " "}
"""Words that differ from a number, or from another word, only by accents: *dört* is not German
*dort*, and *très* is not Spanish *tres*."""

_ONES = """
a an one: minute hour day week month year mile percent million billion euro dollar
ein eine einen einem einer: sekunde minute stunde tag woche monat jahr million milliarde euro
un une: seconde minute heure jour semaine mois an annee million euro
un una uno: minuto hora dia semana mes ano ora giorno settimana mese anno millon milione euro
um uma: minuto hora dia semana mes ano euro
een: minuut uur dag week maand jaar miljoen euro
"""
ONES = [[words.split() for words in line.split(":")] for line in _ONES.strip().splitlines()]
"""Articles, and the units before which they mean one: *an hour*."""
_RATES = "once twice times half mal fois veces volte vezes keer ganger"
RATES = frozenset(_RATES.split())
"""Words after which an article means *per*: *twice a week*."""
_HALVES = "half halves halb halbe halben halber halfte demi demie moitie mitad meia mezzo mezza"
HALVES = frozenset(_HALVES.split())
FRACTIONS = {
    **dict.fromkeys(("third", "thirds", "drittel", "tiers"), 3),
    **dict.fromkeys(("quarter", "quarters", "viertel", "quarts"), 4),
    **dict.fromkeys(("fifth", "fifths", "funftel"), 5),
    **dict.fromkeys(("tenth", "tenths", "zehntel"), 10),
}
"""Denominators of fractions by name."""
