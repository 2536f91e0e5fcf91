"""Words and signs for units, scales and bounds, in the languages of `Bm25Settings`.

They are in the form that `llmpipe.words.bare` returns, in lowercase. Ambiguous words are left out:
*pound* is a weight and a currency, *m* a meter, a minute and a million.
"""

from __future__ import annotations


def _by_word(lines: str) -> dict[str, str]:
    """Map each word to the first word of its line; an indented line continues the previous one."""
    entries = [entry.split() for entry in lines.strip().replace("\n  ", " ").splitlines()]
    return {word.replace("_", " "): entry[0] for entry in entries for word in entry}


UNITS = _by_word("""
eur € euro euros евро 欧元 유로
usd $ us$ dollar dollars us-dollar dolar dolares доллар доллара долларов 美元 달러
gbp £
chf
cny 元 人民币 yuan
jpy 円 日元 yen
krw ₩ 원
inr ₹ rupee rupees
rub ₽ руб рубль рубля рублей
try ₺ lira
% percent per_cent prozent pour_cent por_ciento por_cento per_cento procent prosent процент
  процента процентов
°c
°f
byte bytes
bit bits
kb
mb
gb
tb
kib
mib
gib
tib
mm millimeter millimeters millimetre millimetres
cm centimeter centimeters centimetre centimetres zentimeter
meter meters metre metres metros metri metern метр метра метров
km kilometer kilometers kilometre kilometres kilometern kilometros chilometri километр километра
  километров 公里
mile miles
inch inches
foot feet
mg
g gram grams gramm gramme grammes gramos grammi грамм
kg kilogram kilograms kilo kilos kilogramm килограмм 公斤
tonne tonnes tonnen
ml
liter l liters litre litres litros litri литр литра литров
ms millisecond milliseconds
second seconds sec sekunde sekunden seconde secondes segundo segundos secondi secondo seconden
  sekunder секунд секунды 秒
minute minutes min minuten minuto minutos minuti minuut minuter minutter минут минуты минута 分钟
  dakika
clock uhr o'clock 点 點
hour hours h std stunde stunden heure heures hora horas ora ore uur timmar timer час часа часов
  小时 時間 시간 saat
day days tag tage tagen jour jours dia dias giorno giorni dag dagen dagar dage день дня дней 天
  gun
week weeks woche wochen semaine semaines semana semanas settimana settimane weken vecka veckor
  uge uger uke uker неделя недели недель 周 hafta
month months monat monate monaten mois mes meses mese mesi maand maanden manad manader maned
  maneder месяц месяца месяцев 个月
year years jahr jahre jahren annee annees ano anos anno anni jaar год года лет yil
kw
kwh
hz
khz
mhz
ghz
""")
"""Every name of a unit, and the name that represents the unit."""
UNITS |= {"m": "", "t": "", "w": "", "v": ""}
"""Letters that directly follow a number and stand for several units."""

SIGNS = ("€", "$", "us$", "£", "₩", "₹", "₽", "₺", "%", "eur", "usd", "gbp", "chf")
"""Units that may also come before the number."""

SCALES = {
    word: int(power)
    for word, power in _by_word("""
3 k thousand tausend тысяча тысячи тысяч mille mil duizend tusen 千
4 万 萬 만
5 lakh
6 million millions mio mln millionen millones milhoes milione milioni miljoen miljon miljoner
  millioner миллион миллиона миллионов млн milyon
7 crore
8 億 亿 억
9 billion billions bn milliarde milliarden milliard milliards mrd miliardi miliardo miljard
  miljarder milliarder миллиард миллиарда миллиардов млрд milyar
12 trillion trillions billionen
""").items()
    if not word.isdigit()
}
"""Powers of ten by name."""

AT_LEAST = (
    "at least|no less than|not less than|no fewer than|not fewer than|more than|a minimum of"
    "|minimum of|over|above|mindestens|wenigstens|mehr als|uber|au moins|plus de|al menos"
    "|por lo menos|mas de|almeno|piu di|pelo menos|mais de|minstens|meer dan|minst|mindst"
    "|не менее|более|больше|en az|至少|超过|以上"
)
AT_MOST = (
    "at most|no more than|not more than|up to|less than|fewer than|a maximum of|maximum of|under"
    "|below|hochstens|maximal|bis zu|nicht mehr als|weniger als|unter|au plus|au maximum"
    "|pas plus de|jusqu'a|moins de|como maximo|hasta|no mas de|menos de|al massimo|fino a"
    "|non piu di|meno di|no maximo|ate|hoogstens|niet meer dan|minder dan|hogst|hojst"
    "|не более|менее|меньше|en fazla|最多|不超过|少于"
)
"""Bounds that come before a number, as alternatives of a pattern."""
OR_MORE = "or more|and more|or above|and above|oder mehr|ou plus|o mas|o piu|ou mais|of meer|以上"
OR_LESS = "or less|or fewer|or below|and below|oder weniger|ou moins|o menos|o meno|以下|以内"
"""Bounds that come after a number and its unit."""
