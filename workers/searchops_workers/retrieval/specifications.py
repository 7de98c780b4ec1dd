"""Codes, numbers and units: what BM25 must match exactly, however it was typed.

``2 HP`` = ``2hp``; ``M 12`` = ``m12``; ``3,5 mm`` = ``3.5mm``; ``TN-2110`` = ``tn2110``; ``M12x50`` also gives ``m12``
and ``50``. The joined forms are added beside the parts, on the index side and the query side alike.
"""

from __future__ import annotations

import re

_UNITS = """
mm cm dm m km in ft kg g mg lb oz l ml cl dl hp kw w v a ah mah hz khz mhz ghz bar psi nm rpm gb tb mb lm
l/h l/min m3/h
"""
UNITS = tuple(_UNITS.split())
_UNIT_SYNONYMS = """
hp: ps hv pk
in: zoll inch inches tuuma tuumaa
l: liter liters litre litres litra litraa
w: watt watts wattia
kw: kilowatt kilowatts
v: volt volts volttia
a: amp amps ampere amperes
kg: kilo kilos kilogram kilograms
g: gram grams gramm grammaa
m: meter meters metre metres metria
l/h: lph
l/min: lpm
"""
UNIT_SYNONYMS = {
    word: unit
    for unit, words in (line.split(": ") for line in _UNIT_SYNONYMS.strip().splitlines())
    for word in words.split()
}
NUMBER = r"\d+(?:[.]\d+)?"

DECIMAL_COMMA = re.compile(r"(?<=\d),(?=\d{1,2}(?!\d))")
THOUSANDS = re.compile(r"(?<=\d)[ .](?=000\b)")
INCHES = re.compile(r"(?<=\d)\s*(?:[\"”″]|′′)(?=\W|$)")
METRIC_SPACE = re.compile(r"\bm\s+(?=\d{1,2}(?!\d))")
_NAMES = "|".join(re.escape(unit) for unit in sorted({*UNITS, *UNIT_SYNONYMS}, key=len, reverse=True))
UNIT = re.compile(rf"\b({NUMBER})\s+({_NAMES})(?![\w/])")
GLUED_UNIT = re.compile(rf"^({NUMBER})([a-z]+(?:/[a-z]+)?)$")
DIMENSIONS = re.compile(rf"^(m?{NUMBER})((?:[x×*]{NUMBER})+)$")
DIMENSION_SPACE = re.compile(r"(?<=\d)\s*[x×]\s*(?=\d)")
SEPARATORS = re.compile(r"[-/_+]")
FRACTION = re.compile(r"^\d+/\d+(?![\d/])|^[a-z]{1,3}\d?/[a-z]{1,3}$|/(?:h|min)$")
"""Fractions of an inch and rates are one thing: joined, ``1/2in`` would be twelve inches."""
CODE_DOT = re.compile(r"(?<=[a-z])\.(?=\d)|(?<=\d)\.(?=[a-z])")
WORD = re.compile(r"[^\W_]+(?:[./+-][^\W_]+)*")
MAX_CODE_LETTERS = 4
"""A longer run of letters beside a number is a word; case says nothing, since shoppers type none."""
CODE_APART = re.compile(
    rf"(?<![\w./+-])([a-z]{{2,{MAX_CODE_LETTERS}}})\s+(\d{{3,10}})"
    rf"(?!\w|[-/.+,]\w|\s*[x×]\s*\d|\s*[\"”″]|\s+(?:{_NAMES})(?![\w/]))"
)
"""What may be an article number typed apart (``wp 2706``): few letters without marks, then a number that is not
measured (``oel 500 ml``), multiplied (``70x140``) or small (``gr 38``)."""
ABBREVIATIONS = {"ss": ("stainless", "steel"), "galv": ("galvanised",), "alu": ("aluminium",), "edst": ("edelstahl",)}
"""The trade's short words, which queries spell out."""


def normalise_numbers(text: str) -> str:
    """Folded text with decimal commas, thousands, thread sizes and units in one spelling."""
    text = DECIMAL_COMMA.sub(".", text)
    text = THOUSANDS.sub("", text)
    text = INCHES.sub("in", text)
    text = METRIC_SPACE.sub("m", text)
    text = DIMENSION_SPACE.sub("x", text)
    return UNIT.sub(lambda found: found.group(1) + UNIT_SYNONYMS.get(found.group(2), found.group(2)), text)


def expand(token: str) -> tuple[str, ...]:
    """A token and the further forms it must be found by; the first is the token itself in its canonical form."""
    glued = GLUED_UNIT.match(token)
    if glued is not None and glued.group(2) in UNIT_SYNONYMS:
        token = glued.group(1) + UNIT_SYNONYMS[glued.group(2)]
    forms = [token]
    dimensions = DIMENSIONS.match(token)
    if dimensions is not None:
        forms += re.split(r"[x×*]", token)
    parts = [part for part in SEPARATORS.split(token) if part]
    if len(parts) > 1 and not FRACTION.match(token):
        forms.append("".join(parts))
        if not has_digit(token) or all(len(part) > 1 for part in parts):
            forms += parts
    elif CODE_DOT.search(token):
        forms.append(CODE_DOT.sub("", token))
    return tuple(dict.fromkeys(form.strip(".") for form in forms if form.strip(".")))


def has_digit(token: str) -> bool:
    """Whether the token carries a number: such tokens are never stemmed, and never a stop word."""
    return any(char.isdigit() for char in token)


def looks_like_code(token: str) -> bool:
    """A token with a digit and either a letter or a separator, long enough to be a part number."""
    compact = re.sub(r"[-/_.+]", "", token)
    letters = any(char.isalpha() for char in compact)
    return has_digit(compact) and len(compact) >= 3 and (letters or len(compact) >= 5)
