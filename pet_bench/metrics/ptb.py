r"""Penn-Treebank tokenisation of captions, without Java.

Reproduces what the official caption scorer sees: Stanford CoreNLP 3.4.1 `PTBTokenizer -preserveLines
-lowerCase` followed by the scorer's punctuation filter. Like the original it is a lexer: at each position every
rule is tried, the longest match wins, and the earlier rule breaks ties. A rule's first group is the token; what
it matches beyond that group counts for the length but is read again (`would've` → `would`, `'ve`).

Known differences: characters outside the Basic Multilingual Plane are dropped whatever they are; of entities
only `&amp;` and `&quot;` are decoded; a lone letter before a final period loses that period, whereas the
original decides by the first word of the caption scored next.
"""

from __future__ import annotations

import re
from functools import lru_cache

# The scorer's filter. Its list has brackets too, but in capitals, and the text is lower-cased by then.
DROPPED = frozenset(["''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";", '"'])
BRACKETS = {"(": "-LRB-", ")": "-RRB-", "[": "-LSB-", "]": "-RSB-", "{": "-LCB-", "}": "-RCB-"}

CHARACTERS = str.maketrans(
    {
        **dict.fromkeys("‘’‛", "'"),
        **dict.fromkeys("“”«»„‟", '"'),
        **dict.fromkeys("–—―", " -- "),
        "…": " ... ",
        **dict.fromkeys("\xa0\u200b\ufffd\n\r\v\f\x85\u2028\u2029\t", " "),
        "\xad": "",
        "\ufe0f": "",
        "€": "$",
        "¤": "$",
        "£": "#",
        "¢": " cents ",
        "½": "  1/2 ",
        "¼": "  1/4 ",
        "¾": "  3/4 ",
        "⅓": "  1/3 ",
        "⅔": "  2/3 ",
        **{mark: f" {mark} " for mark in "⁰¹²³⁴⁵⁶⁷⁸⁹₀₁₂₃₄₅₆₇₈₉"},
    }
)

# Abbreviations that keep their period: in any case, with a capital only, before a number only.
ABBREVIATIONS = (
    r"jan|feb|mar|apr|jun|jul|aug|sept?|oct|nov|dec|mon|tues?|wed|thu(?:rs)?|fri"
    r"|ala|ariz|calif|colo|conn|ct|dak|del|fla|ga|ind|kans?|ky|la|md|mich|minn|mo|mont|neb|nev|okla|pa|penn|tenn"
    r"|tex|va|vt|wisc?|wyo|inc|cos?|corp|pp?t[ye]s?|ltd|plc|rt|bancorp|dept|bhd|assn|univ|intl|sys|tel|est|ext|se?q"
    r"|etc|al|jr|sr|bros|(?:ed|ph)\.d|esq|blvd|rd|mrs?|ms|drs?|profs?|sens?|reps?|attys?|lt|col|gen|messrs|govs?"
    r"|adm|rev|maj|sgt|cpl|pvt|capt|ste?|ave|pres|lieut|hon|brig|co?mdr|pfc|spc|supts?|det|mt|ft|adj|adv|asst|assoc"
    r"|ens|insp|mlle|mme|msgr|sfc|invt|elec|natl|m[ft]g|vs|alex|wm|jos|cie|cf|treas"
)
CAPITALISED = "Az|Ark|Ill|Mass|Miss|Ore|Wash"
BEFORE_NUMBER = "ca|figs?|prop|nos?|art|bldg|pp|op"
# A lone letter and a period before one of these ends a sentence, so that the period is no part of the token.
SENTENCE_STARTS = (
    "A|About|According|Additionally|After|All|Also|Although|An|Another|As|At|Before|Both|But|By|Did|During|Each|Earlier"
    "|Following|For|From|He|Her|Here|His|How|However|If|In|It|Its|Last|Later|Many|More|Most|Now|On|Once|One|Other|Our"
    "|She|Since|So|Some|Such|That|The|Their|Then|There|These|They|This|Two|Under|Upon|We|When|While|What|Who|Why|Yet"
    "|You"
)

L = r"[^\W\d_]"  # a letter
A = r"[^\W_]"  # a letter or digit
WORD = rf"{L}{A}*(?:[.!?]{L}{A}*)*"
CLITIC = r"'(?:[msd]|re|ve|ll)"
NUMBER = r"(?:\d*(?:[.:,]\d+)+|\d+)"
PART = rf"(?:[dol]'{A})?(?:{NUMBER}(?!{A})|{A}+)"
ACRONYM = r"[a-z](?:\.[a-z])*"
TAG = r"[a-z][\w:.-]*"
END = r"(?![A-Za-z])"

CASED = (
    rf"([A-Za-z])\.(?: +(?:{SENTENCE_STARTS})[ ?!]| *$)",
    rf"((?:{CAPITALISED})\.)",
    rf"([A-HJ-XZn]'{L}{{2,}}|{L}+[aeiouyAEIOUY]'[aeiouA-Z]{L}*)",
    r"([A-Z]+(?:[+&][A-Z]+)+)",
    r"([A-Z]*\$)",
    rf"([<>]?[:;=][-o*']?[()DPdpO\\{{@|\[\]]){END}",
)
UNCASED = (
    rf"(can)not|('t)was|(?:('t)is|(gon)na|(got)ta|(wan)na|(lem)me|(gim)me){END}",
    rf"(</?{TAG}(?: +{TAG}(?: *= *(?:\"[^\"]*\"|'[^']*'|[^\s\"'>]+))?)* */?>|<[!?][a-z-][^>]*>)",
    rf"({WORD})(?:{CLITIC}){{1,2}}",
    rf"([a-z]*[a-mo-z])n't(?:{CLITIC})?",
    rf"({WORD})",
    r"(https?://[^\s\"<>|()]+[^\s\"<>|.!?(){},-])",
    rf"((?:www\.(?:[^\s\"<>|.!?(){{}},]+\.)+[a-z]{{2,4}}|(?:[^\s\"`'<>|.!?(){{}},$_-]+\.)+(?:com|net|org|edu))"
    rf"(?:/[^\s\"<>|()]+[^\s\"<>|.!?(){{}},-])?){END}",
    r"([a-z0-9][^\s\"<>|(){}]*@(?:[^\s\"<>|(){}.]+\.)*[^\s\"<>|(){}\[\].,;:]+)",
    r"([@#][a-z_][a-z0-9_]*)",
    rf"({CLITIC}|n't){END}",
    rf"('n(?:'|(?!\S))|[ldj]'|(?:dunkin|somethin|ol)'|'em|'[2-9]0s|'till?|'cause|cont'd\.?|nor'easter|c'mon|e'er|s'mores"
    rf"|ev'ry|li'l|nat'l|o'o)|(y'){L}",
    rf"(\d{{1,2}}[-/]\d{{1,2}}[-/]\d{{2,4}}|(?:\d{{1,4}}[- ])?\d{{1,4}}/\d{{1,4}}|[-+]?{NUMBER})",
    r"(-[lr][rcs]b-|c\.d\.s|pro-|anti-|cap'n|c'est|yahoo!|jeopardy!|e!|c\+\+|[cf]\#)",
    rf"((?:[-+]{NUMBER}(?!{A})|{PART})(?:[-_‐‑]{PART})*)",
    rf"({A}[\w.,]*(?:[-_](?:{A}+|{ACRONYM}\.))+)(?![\w.+])",
    rf"({A}+(?:-{L}+){{0,2}}(?:/{A}+(?:-{L}+){{0,2}}){{1,2}})",
    rf"((?:{ABBREVIATIONS}|{ACRONYM})\.)",
    rf"((?:{BEFORE_NUMBER})\.) ?\d",
    rf"({WORD}\.)[,;:]",
    r"('\d\d)(?:\s|$)",
    r"((?:\(\d{2,3}\) ?|(?:\+\+?)?(?:\d{2,4}[- ])?\d{2,4}[- ])\d{3,4}[- ]?\d{3,5}"
    r"|(?:(?:\+\+?)?\d{2,4}\.)?\d{2,4}\.\d{3,4}\.\d{3,5})",
    r"(\.{2,}|-+|[?!]+|\*+|\#+|@+|_+|<<|>>|''|``)",
    r"(\S)",
)
RULES = [re.compile(CASED[0]), *(re.compile(rule, re.I) for rule in UNCASED), *map(re.compile, CASED[1:])]

PLAIN = re.compile(r"[A-Za-z]+(?=,?(?: |$))")
SPLIT = frozenset(["cannot", "gonna", "gotta", "wanna", "lemme", "gimme"])


def _longest(text: str, position: int) -> re.Match:
    matches = (rule.match(text, position) for rule in RULES)
    return max((match for match in matches if match), key=re.Match.end)


def _finish(token: str) -> str:
    if token in BRACKETS:
        token = BRACKETS[token]
    elif len(token) > 1 and token[-1] in BRACKETS and token[0] in "<>:;=":  # a smiley
        token = token[:-1] + BRACKETS[token[-1]]
    elif re.fullmatch(r"\.{2,}|-{3,4}", token):
        return "--"
    return token.lower().replace(" ", "\xa0")


@lru_cache(maxsize=1 << 18)
def tokenize(text: str) -> str:
    """The tokens of one caption, lower-cased, punctuation dropped, joined by single spaces."""
    text = "".join(mark for mark in text.replace("&amp;", "&").replace("&quot;", '"') if mark <= "\uffff")
    text = text.translate(CHARACTERS)
    tokens, position = [], 0
    while position < len(text):
        if text[position].isspace():
            position += 1
            continue
        plain = PLAIN.match(text, position)
        if plain and plain[0].lower() not in SPLIT:
            tokens.append(plain[0].lower())
            position = plain.end()
            continue
        match = _longest(text, position)
        token = match[match.lastindex or 0]
        position += len(token)
        tokens.append(_finish(token))
    return " ".join(token for token in tokens if token not in DROPPED)
