"""Words that name numbers, months, days and negations, in the languages of `Bm25Settings`.

They are written as `llmpipe.words.bare` gives them. A word that means something else in another of
these languages is left out: *due* is Italian for two, *to* Danish, *once* Spanish for eleven.
"""

from __future__ import annotations


def _numbered(first: int, *lines: str) -> dict[str, int]:
    """Number the words of each line."""
    return {word: n for line in lines for n, word in enumerate(line.split(), first) if word != "-"}


_UNITS = _numbered(
    2,
    "two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
    " seventeen eighteen nineteen twenty",
    "zwei drei vier funf sechs sieben acht neun zehn - zwolf dreizehn vierzehn funfzehn sechzehn"
    " siebzehn achtzehn neunzehn zwanzig",
    "deux trois quatre cinq six sept huit neuf dix onze douze treize quatorze quinze seize",
    "- tres cuatro cinco seis siete ocho nueve diez - doce trece catorce quince dieciseis"
    " diecisiete dieciocho diecinueve veinte",
    "- tre quattro cinque - sette otto nove dieci undici dodici tredici quattordici quindici sedici"
    " diciassette diciotto diciannove venti",
    "dois tres quatro cinco seis sete oito nove dez onze doze treze quatorze quinze dezesseis"
    " dezessete dezoito dezenove vinte",
    "twee drie vier vijf zes zeven acht negen tien - twaalf dertien veertien vijftien zestien"
    " zeventien achttien negentien twintig",
    "tva tre fyra fem - sju atta nio - elva tolv tretton fjorton femton sexton sjutton arton nitton"
    " tjugo",
    "- tre - fem seks syv otte - - elleve tolv tretten fjorten femten seksten sytten atten"
    " nitten tyve",
    "- - - - - sju atte",
    "два три четыре пять шесть семь восемь девять десять одиннадцать двенадцать",
    "iki uc dort bes alti yedi sekiz dokuz - - oniki",
)
_TENS = {
    word: 10 * n
    for word, n in _numbered(
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
NUMERALS = {**_UNITS, **_TENS, "thousand": 1000, "tausend": 1000, "тысяча": 1000}
"""Numbers by their names. One is left out: it is an article in many languages."""

MONTHS = _numbered(
    1,
    "january february march april may june july august september october november december",
    "januar februar marz april mai juni juli august september oktober november dezember",
    "janvier fevrier mars avril mai juin juillet aout septembre octobre novembre decembre",
    "enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre",
    "gennaio febbraio marzo aprile maggio giugno luglio agosto settembre ottobre novembre dicembre",
    "janeiro fevereiro marco abril maio junho julho agosto setembro outubro novembro dezembro",
    "januari februari maart april mei juni juli augustus september oktober november december",
    "januari februari mars april maj juni juli augusti september oktober november december",
    "января февраля марта апреля мая июня июля августа сентября октября ноября декабря",
    "январь февраль март апрель май июнь июль август сентябрь октябрь ноябрь декабрь",
    "ocak subat mart nisan mayis haziran temmuz agustos eylul ekim kasim aralik",
)
UNSURE_MONTHS = frozenset({"mars", "marco", "mart"})
"""These count only beside the number of a day or year, and so do the short names."""
SHORT_MONTHS = _numbered(
    1,
    "jan feb mar apr may jun jul aug sep oct nov dec",
    "- - - - - - - - sept okt - dez",
)

WEEKDAYS = _numbered(
    1,
    "monday tuesday wednesday thursday friday saturday sunday",
    "mondays tuesdays wednesdays thursdays fridays saturdays sundays",
    "montag dienstag mittwoch donnerstag freitag samstag sonntag",
    "montags dienstags mittwochs donnerstags freitags samstags sonntags",
    "lundi mardi mercredi jeudi vendredi samedi dimanche",
    "lunes martes miercoles jueves viernes sabado domingo",
    "lunedi martedi mercoledi giovedi venerdi sabato domenica",
    "maandag dinsdag woensdag donderdag vrijdag zaterdag zondag",
    "mandag tisdag onsdag torsdag fredag lordag sondag",
    "mandag tirsdag onsdag torsdag fredag lordag sondag",
    "понедельник вторник среду четверг пятницу субботу воскресенье",
    "pazartesi sali carsamba persembe cuma cumartesi -",
)

_NEGATIONS = """
not no never none neither nor nobody nothing nowhere cannot without
nicht kein keine keinen keinem keiner keines nie niemals niemand nichts ohne weder
pas jamais aucun aucune rien sans non
nunca jamas ningun ninguna ninguno nada nadie tampoco
nessun nessuna nessuno niente senza
nao nenhum nenhuma ninguem sem
niet geen nooit niemand niets zonder
inte ej aldrig ingen inget inga
ikke aldri aldrig intet uden uten
не нет ни никогда никто ничего без нельзя
degil degildir yok yoktur asla
لا ليس ليست لم لن بدون
לא אין בלי אינו אינה
नहीं बिना
"""
NEGATIONS = frozenset(_NEGATIONS.split())
"""Words that negate what stands beside them, and those of other scripts. What a language puts into
the endings of its verbs, as Turkish does, is not covered."""

DENSE_NEGATIONS = ("不", "没", "沒", "未", "勿", "ない", "ません", "ไม่")
"""Negations of languages without spaces, and where they stand."""
_PASSED_OVER = (
    "be been to a an the any yet ein eine einen der die das le la les de un une el los il"
)
PASSED_OVER = frozenset(_PASSED_OVER.split())
"""Words between a negation and what it negates."""
_NOT_ONLY = "only just merely nur bloss seulement solo solamente so soltanto alleen"
NOT_ONLY = frozenset(_NOT_ONLY.split())
"""Words after which a negation negates nothing."""
NEGATED_BEFORE = frozenset({"degil", "degildir", "yok", "yoktur", "ない", "ません"})
"""Those that follow what they negate."""
