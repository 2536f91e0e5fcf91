"""Words for months, days and negations, in the languages of `Bm25Settings`.

They are in the form that `llmpipe.words.bare` returns. A word that means something else in another
of these languages is left out.
"""

from __future__ import annotations

from llmpipe.retrieval.number_words import numbered

MONTHS = numbered(
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
"""Month names that count only beside the number of a day or year, like the short names."""
SHORT_MONTHS = numbered(
    1,
    "jan feb mar apr may jun jul aug sep oct nov dec",
    "- - - - - - - - sept okt - dez",
)

WEEKDAYS = numbered(
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
not no never none neither nor nobody nothing nowhere cannot without hardly scarcely barely
nicht kein keine keinen keinem keiner keines nie niemals niemand nichts ohne weder keineswegs kaum
pas jamais aucun aucune rien sans non guere
nunca jamas ningun ninguna ninguno nada nadie tampoco
nessun nessuna nessuno niente senza
nao nenhum nenhuma ninguem sem
niet geen nooit niemand niets zonder
inte ej aldrig ingen inget inga
ikke aldri aldrig intet uden uten
не нет ни никогда никто ничего без нельзя
degil degildir yok yoktur asla
لا ليس ليست لم لن بدون غير
לא אין בלי אינו אינה
नहीं बिना मत
안 못
"""
NEGATIONS = frozenset(_NEGATIONS.split())
"""Words that negate a word beside them, including those of other scripts. Negation by verb endings,
as in Turkish, is not covered."""

_BEHIND = ("ない", "なく", "ません", "않", "없", "못하", "못합", "아니", "아닙")
DENSE_NEGATIONS = ("不", "没", "沒", "未", "勿", "ไม่", *_BEHIND)
"""Negations inside words and in languages without spaces."""
NEGATED_BEFORE = frozenset({"degil", "degildir", "yok", "yoktur", *_BEHIND})
"""Negations that follow the word they negate."""

_PASSED_OVER = """
be been to a an the any yet ein eine einen der die das le la les de un une el los il
longer means way circumstances usually always normally currently ever even quite very really often
mehr immer noch sehr ganz unbedingt derzeit oft fall weise mas piu mais toujours encore
siempre sempre altijd meer alltid mer lenger lengre уже больше всегда daha
"""
PASSED_OVER = frozenset(_PASSED_OVER.split())
"""Words that may stand between a negation and the word it negates."""
ADVERB_ENDINGS = ("ally", "ely", "ntly", "arly", "ement", "amment", "mente", "weise")
"""Endings of adverbs, which may stand there too."""
_CARRIERS = "allo perm poss erla gest mogl admi auto toeg till tilg разр"
CARRIERS = frozenset(_CARRIERS.split())
"""Stems such as *allow*, where *no pets are allowed* equals *pets are not allowed*."""
_NOT_ONLY = "only just merely nur bloss seulement solo solamente so soltanto alleen"
NOT_ONLY = frozenset(_NOT_ONLY.split())
"""Words that cancel the negation before them, as in *not only*."""

_CONJUNCTIONS = """
and but while whereas und aber wahrend et mais tandis y pero e ma en maar och men og и а но ve
"""
CONJUNCTIONS = frozenset(_CONJUNCTIONS.split())
"""Words between two clauses of a sentence."""
_FUNCTION_WORDS = """
the a an is are was were be to of in on at for per by with it its this that from as or has have
der die das den dem des ein eine ist sind im in am zum zur fur pro mit es von auf oder hat
le la les un une des du de est sont en au aux pour par avec il elle ou a
el los las una es son por para con al del lo che di per da il i gli sono per con
o os as um uma do da dos das no na em e para com het een is zijn van voor met op te
i pa for till av er det den
"""
FUNCTION_WORDS = frozenset(_FUNCTION_WORDS.split())
"""Words that say nothing about the topic of a clause."""
