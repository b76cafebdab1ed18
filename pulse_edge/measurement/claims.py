"""Find in a text each statement about an ECG that a measurement can support or contradict.

In: the text of an answer and its question. Out: `Claim`s with their offsets in the text. A
statement with a doubt ("possible", "cannot exclude"), about another ECG, about ECGs in general, or
whose denial is ambiguous is no claim. The method is that of NegEx (Chapman et al. 2001): a trigger
word, and a scope that ends at certain words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from pulse_edge.measurement.numbers import quantities
from pulse_edge.measurement.phrases import (
    ADJECTIVES,
    PHRASES,
    PLACES,
    QUALITIES,
    STATES,
    SUBJECTS,
    Phrase,
)


@dataclass(frozen=True)
class Claim:
    """One measurable statement of a text."""

    topic: str
    """Such as `rate`, `atrial fibrillation`, `ST elevation`: what the rules go by."""
    text: str
    """The words, as they stand in the text."""
    start: int
    """Offset of the first character in the text."""
    end: int
    present: bool = True
    """False: the text denies it."""
    low: float | None = None
    """Lower end of a number, in `unit`; None: no number, or none on this side."""
    high: float | None = None
    unit: str = ""
    rough: bool = False
    """The text says "about"."""
    leads: tuple[str, ...] = ()
    """Where the text places it; empty: anywhere."""
    place: str = ""
    """The same in the text's words, such as `inferior` or `V1-V3`."""


_LEAD = r"\b(?:[aA][vV][rlfRLF]|[vV][1-6]|III|II|I|iii|ii|(?<=leads )i|(?<=lead )i|(?<=in )i)\b"
_LEAD_LIST = (
    rf"{_LEAD}(?:\s*(?:-|–|to|through|,|and|&|/)+\s*(?:and\s+)?(?:leads?\s+)?(?:{_LEAD}|[1-6]\b))*"
)
_PLACE_NAMES = "|".join(re.escape(name).replace(r"\ ", "[- ]") for name in PLACES)
_PLACE_LIST = rf"(?:{_PLACE_NAMES})(?:(?:\s*(?:,|and|&|/|-)+\s*)(?:{_PLACE_NAMES}))*"
_WHERE_AFTER = re.compile(
    rf"^(?:\s*|[^.;]{{0,45}}?(?:\bin|\bover|\bof|\bacross|\binvolving|\bat|\(|:)\s*)(?:the\s+)?(?:leads?\s+)?"
    rf"(?P<where>(?-i:{_LEAD_LIST})|{_PLACE_LIST})",
    re.I,
)
_WHERE_BEFORE = re.compile(
    rf"(?P<where>(?-i:{_LEAD_LIST})|{_PLACE_LIST})(?:\s+(?:wall|leads?))?(?:,?\s+(?:there (?:is|are)|shows?|ha(?:s|ve)))?"
    r"\s*(?:acute |marked |mild |significant |slight )?$",
    re.I,
)
_SENTENCE = re.compile(r"(?:\b(?:i\.e|e\.g|vent|approx)\.|[^.!?;\n]|\.(?=\d))+[.!?;\n]?", re.I)
_GENERAL = re.compile(
    r"\b(?:(?:is|are) defined|definition|criteria (?:include|are defined)|in general|typically|generally|usually|normally"
    r"|should be|would (?:be|show|have)|if|normal (?:values?|ranges?) (?:is|are|for)|can (?:be|indicate|cause|lead|occur)"
    r"|compared (?:with|to)|refers? to|is (?:a|an) (?:condition|arrhythmia|measure|term)|options?)\b",
    re.I,
)
"""A sentence about ECGs in general, a condition, a comparison with another ECG, or the options of a
question."""
_BREAK = re.compile(
    r"\b(?:but|however|although|though|except|apart from|other than|aside from|while|whereas|yet|there (?:is|are)|which"
    r"|therefore|hence|thus|(?<!not )(?<!n't )(?:shows?|showing|reveals?|demonstrates?|indicat(?:es?|ing)|confirm(?:s|ing)?))\b"
    r"|[(;]"
    r"|,\s*(?:and\s+)?(?:consistent|compatible|in keeping|suggest\w*|with)\b"
    r"|\b(?:and|,)\s+(?:the|an?|with)\b",
    re.I,
)
_DENIAL = re.compile(
    r"\b(?:no(?! (?:longer|doubt))|not(?! only)|without|absence|absent|loss|lack(?:s|ing)?|never|neither|nor|free of|"
    r"negative for|excludes?|excluded|rules? out (?!\?)|ruled out|rather than|instead of|n't|isn't|aren't|doesn't|don't"
    r"|fails? to (?:show|reveal))\b",
    re.I,
)
_DENIAL_AFTER = re.compile(
    r"^(?:(?!\b(?:is|are|was|were|has|have|shows?|with|but|and (?:the|an?))\b)[^.;:,]){0,50}?\s*"
    r"(?:(?:is|are|was|were|can|could|do|does)(?: \w+)?\s*(?:not|n't|never)\b(?! only| exclude)"
    r"|(?:is|are|was|were)?\s*(?:\w+ly )?(?:absent|excluded|ruled out|lacking|lost|missing|replaced)\b"
    r"|:?\s*not (?:seen|visible|present|evident|identifi\w+|discernible|noted|found|detected)\b"
    r"|:\s*(?:no|none|absent|negative|not present)\s*(?:[.,;]|$))",
    re.I,
)
_DOUBT = re.compile(
    r"\b(?:possibl[ey]|possibility|probabl[ey]|likely|likelihood|suspected|suspicio\w+|questionable|cannot|can't|may|might"
    r"|could|borderline|consider(?:ed|ing)?|rule out|r/o|suggest\w*|unclear|uncertain|equivocal|difficult|old|previous(?:ly)?"
    r"|prior|history of|known|risk (?:of|for)|monitor\w* for|evaluat\w+ for|assess\w* for|look\w* for|screen\w* for"
    r"|lead(?:s|ing)? to|progress\w* to|predispos\w+ to|differential|versus|vs|alternatively|mimic\w*|resembl\w*"
    r"|exclude (?:a|an|the)|need to|compared|whether|potential(?:ly)?|intermittent(?:ly)?|appears? to)\b|\?",
    re.I,
)
_DOUBT_AFTER = re.compile(
    r"^[^.;,]{0,40}?\b(?:cannot|can't|could not|not (?:be )?(?:excluded|ruled out)|possible|likely|suspected|should be"
    r"|may be|might|is questionable|borderline|vs\.?|versus|difficult|hidden|buried|hard to|obscured)\b|^\s*\?",
    re.I,
)
_WORDS = tuple(
    (p, re.compile(rf"(?<![\w])(?:{p.words})(?![\w])", 0 if p.exact_case else re.I))
    for p in PHRASES
)
_SUBJECT_WORDS = {
    name: re.compile(rf"\b(?:{words})(?!\w)", re.I) for name, words in SUBJECTS.items()
}
_ANY_SUBJECT = "|".join(f"(?:{words})" for words in SUBJECTS.values())
_LIST = rf"(?:{_ANY_SUBJECT})(?:(?:\s*(?:,|/|&|\band\b)+\s*(?:(?:the|a)\s+)?)(?:{_ANY_SUBJECT}))*"
_BEFORE_NOUN = {
    name: re.compile(rf"\b(?P<adjective>{words})\s+(?:and \w+ )?(?P<subjects>{_LIST})(?!\w)", re.I)
    for name, words in ADJECTIVES.items()
}
_NOT_IN_GAP = r"\b(?:is|are|was|and|with|but)\b"
_NOT_IN_DEGREE = r"\b(?:but|with|and|which|PR|QRS|QTc?|axis|ST|rate)\b"
_NOT_AFTER = r"\s+(?:PR|QRS|QT|axis|sinus|ST|T|P|ECG|rate|intervals|range|values?|is|are|between|up to)\b|\s*[:<>≤≥\d]"
_AFTER_NOUN = {
    name: re.compile(
        rf"\b(?P<subjects>{_LIST})(?!\w)(?P<gap>(?:(?!{_NOT_IN_GAP})[^.;,:]){{0,25}}?"
        rf"(?:[:,]|\bis\b|\bare\b|\bappears?\b|\bremains?\b|\bmeasures?\b)?"
        rf"(?:(?!{_NOT_IN_DEGREE})[^.;,]){{0,40}}?,?\s*(?:which is |all )?)\b(?P<adjective>{words})(?!{_NOT_AFTER})",
        re.I,
    )
    for name, words in ADJECTIVES.items()
}


def claims_in(text: str, question: str = "") -> tuple[Claim, ...]:
    """The measurable statements of an answer, in the order of the text.

    A bare `yes`, `no` or letter takes its topic from the question.
    """
    matches: list[Claim] = []
    if short := _short_answer(text, question):
        return (short,)
    for match in _SENTENCE.finditer(text):
        sentence = match.group()
        if sentence.rstrip().endswith("?") or _GENERAL.search(sentence):
            continue
        by = match.start()
        matches += [
            replace(claim, start=claim.start + by, end=claim.end + by)
            for claim in _in_sentence(sentence)
        ]
    return tuple(sorted(matches, key=lambda claim: (claim.start, claim.end)))


_ASKED = re.compile(
    r"^(?:Does (?:this|the) ECG (?:show|have)|Is (?:this|there|it)|Are there)\s+(?:an?\s+|any\s+|the\s+)?(.+?)\s*\?",
    re.I,
)
_SAID = re.compile(r"^\s*(?P<word>yes|no)\b\s*(?:[.,!]|$)", re.I)


_LETTER = re.compile(r"^\s*\(?(?P<word>[A-H])\)?[.:]?\s*$")


def _short_answer(text: str, question: str) -> Claim | None:
    """`Yes.` to `Does this ECG show atrial fibrillation?`, `B` to a question with lettered options;
    None for other answers."""
    letter, output, questions = (
        _LETTER.match(text),
        _SAID.match(text),
        _ASKED.match(question.strip()),
    )
    if letter:
        option = re.search(rf"^\s*{letter['word']}[.:)]\s*(.+)$", question, re.M)
        return _alone(option.group(1), letter, present=True) if option else None
    if output and questions and not text[output.end() :].strip():
        return _alone(questions.group(1), output, present=output["word"].lower() == "yes")
    return None


def _alone(words: str, answer: re.Match[str], *, present: bool) -> Claim | None:
    """The one statement of a few words, placed on the answer's word; None where there are none or
    several."""
    claims = _in_sentence(words)
    if len(claims) != 1 or not claims[0].present:
        return None
    return replace(
        claims[0],
        text=answer["word"],
        start=answer.start("word"),
        end=answer.end("word"),
        present=present,
    )


def _in_sentence(sentence: str) -> list[Claim]:
    numbers = [
        Claim(
            q.topic, sentence[q.start : q.end], q.start, q.end, True, q.low, q.high, q.unit, q.rough
        )
        for q in quantities(sentence)
        if not _DOUBT_ABOUT_NUMBER.search(sentence[: q.start])
    ]
    worded = _without_overlaps([*_phrases(sentence), *_qualities(sentence)])
    return [*numbers, *(claim for claim in worded if claim.topic != "unspecified")]


_DOUBT_ABOUT_NUMBER = re.compile(
    r"\b(?:rule out|cannot|may|might|could|unless|previous|prior|risk of|compared)\b[^,]*$", re.I
)


def _without_overlaps(claims: Sequence[Claim]) -> list[Claim]:
    """The longest statement wins where several share words; of equally long ones all stay that come
    from one list."""
    chosen: list[Claim] = []
    for claim in sorted(claims, key=lambda c: (c.start - c.end, c.start)):
        clash = [c for c in chosen if claim.start < c.end and c.start < claim.end]
        if all(_same_list(c, claim) for c in clash) or all(_combines(c, claim) for c in clash):
            chosen.append(claim)
    return sorted(chosen, key=lambda c: c.start)


def _same_list(one: Claim, other: Claim) -> bool:
    """Whether two statements are those of one list: `normal PR and QRS`."""
    return (one.start, one.end) == (other.start, other.end) and one.topic != other.topic


def _combines(one: Claim, other: Claim) -> bool:
    """Whether two statements share words and are both meant: `regular narrow-complex tachycardia`."""
    together = (
        {"regular rhythm", "tachycardia"},
        {"regular rhythm", "narrow QRS"},
        {"regular rhythm", "wide QRS"},
        {"regular rhythm", "sinus rhythm"},
        {"regular rhythm", "normal sinus rhythm"},
        {"regular rhythm", "paced rhythm"},
    )
    return {one.topic, other.topic} in together


def _phrases(sentence: str) -> Iterator[Claim]:
    for phrase, words in _WORDS:
        for match in words.finditer(sentence):
            present = polarity(sentence, match.start(), match.end(), phrase.kind == "state")
            if present is not None and re.search(r"\b(?:no|not)\b", match.group(), re.I):
                present = not present
            if phrase.topic == "unspecified" or present is not None:
                yield from _claim(phrase, sentence, match, present)


_NO_ABNORMALITY = re.compile(
    r"\bno (?:significant |obvious |apparent |clear )?abnormalit(?:y|ies)$", re.I
)


def _claim(
    phrase: Phrase, sentence: str, match: re.Match[str], present: bool | None
) -> Iterator[Claim]:
    topic, span = phrase.topic, match.span()
    if topic == "isoelectric ST" and present:
        yield Claim("ST deviation", match.group(), *span, False)
    elif (
        topic == "abnormality"
    ):  # alone the word says too little; "no abnormalities" says that the ECG is normal
        whole = _NO_ABNORMALITY.search(sentence[: match.end()])
        if present is False and whole:
            yield Claim("normal ECG", whole.group(), whole.start(), match.end(), True)
    elif topic == "ST deviation":
        if present is False:
            yield Claim(topic, match.group(), *span, False)
    elif topic != "isoelectric ST":
        leads, place = _where(sentence, match) if phrase.placed else ((), "")
        yield Claim(topic, match.group(), *span, bool(present), leads=leads, place=place)


def _qualities(sentence: str) -> Iterator[Claim]:
    """`normal PR and QT intervals`, `the QRS complex is wide`."""
    for name in ADJECTIVES:
        for match in (
            *_BEFORE_NOUN[name].finditer(sentence),
            *_AFTER_NOUN[name].finditer(sentence),
        ):
            start, end = match.span()
            if name == "normal" and re.search(
                r"\b(?:ab|not |near[- ]|otherwise )$", sentence[: match.start("adjective")]
            ):
                continue
            for subject, words in _SUBJECT_WORDS.items():
                if not _has(words, match["subjects"]):
                    continue
                for topic, asserted in QUALITIES.get((subject, name), ()):
                    present = _polarity_of_quality(sentence, match, topic in STATES)
                    if present is not None and (asserted or present):
                        yield Claim(topic, match.group(), start, end, present == asserted)


def _has(words: re.Pattern[str], subjects: str) -> bool:
    """Whether a list of subjects names one; `QRS axis` is an axis alone, `QT` no `T`."""
    return words.search(subjects) is not None


def _polarity_of_quality(sentence: str, match: re.Match[str], state: bool) -> bool | None:
    """As `polarity`; between subject and adjective a `not` denies and a doubt leaves it open."""
    inside = match.groupdict().get("gap") or ""
    if _DOUBT.search(inside):
        return None
    if re.search(r"\b(?:not|neither|n't)\b", inside, re.I):
        return False
    return polarity(sentence, match.start(), match.end(), state)


def polarity(sentence: str, start: int, end: int, state: bool) -> bool | None:
    """Whether the words from start to end are asserted (True), denied (False), or neither with
    certainty (None)."""
    before, after = sentence[:start], sentence[end:]
    scope = _scope(before)
    if _DOUBT_AFTER.search(after) or _DOUBT.search(re.split(r",", scope)[-1]):
        return None
    if _DENIAL_AFTER.search(after):
        return False
    triggers = list(_DENIAL.finditer(scope))
    if not triggers:
        return True
    between = scope[triggers[-1].end() :]
    if re.search(
        r"\b(?:in|during)\s+$", between
    ):  # `no PR interval in atrial fibrillation` denies no fibrillation
        return None
    if not re.search(r",|\band\b", between):
        return False
    if state:
        return True
    return (
        False
        if re.search(r"\b(?:n?or)\b", between + after.split(",")[-1][:0] + _rest_of_list(after))
        else None
    )


def _rest_of_list(after: str) -> str:
    """What follows up to the end of a list: an `or` there makes the whole list a denied one."""
    return re.split(r"\b(?:but|with|and|there|is|are|the)\b|[.;:]", after)[0]


def _scope(before: str) -> str:
    """The words before a statement, from the last word that ends the scope of a denial."""
    ends = [m.end() for m in _BREAK.finditer(before)]
    return before[ends[-1] :] if ends else before


def _where(sentence: str, match: re.Match[str]) -> tuple[tuple[str, ...], str]:
    """The leads in which the text places it; none: anywhere."""
    after = sentence[match.end() :]
    other = re.search(r"\b(?:ST|T[- ]?wave|Q[- ]?wave|reciprocal|with|and (?:the|an?))\b", after)
    for where in (
        _WHERE_AFTER.search(_up_to(after, other)),
        _WHERE_BEFORE.search(sentence[: match.start()]),
    ):
        if where:
            return leads_of(where["where"]), where["where"]
    shared = (
        _WHERE_AFTER.search(after)
        if other and re.match(r"\s*(?:and|or|,|/)\s*(?:T|ST)", after)
        else None
    )
    if shared:  # `ST elevation and T-wave inversion in V1-V3`
        return leads_of(shared["where"]), shared["where"]
    return (), ""


def _up_to(text: str, match: re.Match[str] | None) -> str:
    return text[: match.start()] if match else text


_ORDER = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
_LIMB = {name.lower(): name for name in _ORDER[:6]}


def leads_of(words: str) -> tuple[str, ...]:
    """Leads of `V1-V4`, `v5,6`, `II, III and aVF`, `inferior and lateral`, in the standard order."""
    leads: set[str] = set()
    for chest in re.findall(r"[vV][1-6](?:\s*(?:-|–|to|through|,|/|&)\s*[vV]?[1-6]\b)*", words):
        for first, last in re.findall(r"([1-6])(?:\s*(?:-|–|to|through)\s*[vV]?([1-6]))?", chest):
            leads |= {f"V{n}" for n in range(int(first), int(last or first) + 1)}
    leads |= {_LIMB[name.lower()] for name in re.findall(r"\b(?:aV[RLF]|III|II|I)\b", words, re.I)}
    rest = words
    for name, members in PLACES.items():
        pattern = re.escape(name).replace(r"\ ", "[- ]")
        if re.search(rf"\b{pattern}\b", rest, re.I):
            leads |= set(members)
            rest = re.sub(rf"\b{pattern}\b", " ", rest, flags=re.I)
    return tuple(lead for lead in _ORDER if lead in leads)
