"""What counts as a measurable statement of a text, and what does not."""

from __future__ import annotations

import random

import pytest

from pulse_edge.measurement.claims import Claim, claims_in, leads_of
from pulse_edge.measurement.number_rules import NUMBERS
from pulse_edge.measurement.rules import RULES
from pulse_edge.report.findings import STATEMENTS


def notation(claim: Claim) -> str:
    """`rate=72`, `rate=50..60`, `QRS duration>120`, `-ST elevation` (denied), `ST elevation@V1 V2`."""
    if claim.low is None and claim.high is None:
        place = f"@{' '.join(claim.leads)}" if claim.leads else ""
        return f"{'' if claim.present else '-'}{claim.topic}{place}"
    if claim.low is None:
        return f"{claim.topic}<{claim.high:g}"
    if claim.high is None:
        return f"{claim.topic}>{claim.low:g}"
    return f"{claim.topic}={claim.low:g}" + ("" if claim.low == claim.high else f"..{claim.high:g}")


REPORTS = [
    (
        "The ECG shows sinus rhythm with a heart rate of 75 bpm. The PR interval is 160 ms, the QRS duration 90 ms, "
        "normal axis, no ST-T changes.",
        "sinus rhythm; rate=75; PR interval=160; QRS duration=90; normal axis; -ST deviation",
    ),
    (
        "Ventricular rate 72 bpm. Atrial fibrillation. QRS duration 140 ms. Left bundle branch block. "
        "Left axis deviation. Abnormal ECG.",
        "rate=72; atrial fibrillation; QRS duration=140; left bundle branch block; left axis deviation",
    ),
    (
        "sinus rhythm. left axis deviation. st segments are depressed in i, avl, v5,6. probable inferior infarct.",
        "sinus rhythm; left axis deviation; ST depression@I aVL V5 V6",
    ),
    (
        "- **Heart Rate:** 75 bpm\n- **Rhythm:** Regular sinus rhythm\n- **PR Interval:** Normal\n"
        "- **QRS Duration:** Approximately 100 ms\n- **Axis:** Left axis deviation (-45 degrees)",
        "rate=75; regular rhythm; sinus rhythm; normal PR; QRS duration=100; left axis deviation; axis=-45",
    ),
    (
        "VENT RATE: 086        PR INTERVAL: 132       QRS DURATION: 132\nQT: 388               QTC: 464\n"
        "P AXIS: 112           R AXIS: 70             T AXIS: 148\nNormal sinus rhythm\nRight bundle branch block",
        "rate=86; PR interval=132; QRS duration=132; QT interval=388; QTc interval=464; axis=70; normal sinus rhythm; "
        "right bundle branch block",
    ),
    (
        "Irregularly irregular rhythm with no P waves, consistent with atrial fibrillation.",
        "irregular rhythm; -P waves; atrial fibrillation",
    ),
    (
        "Rate: 150 bpm. Rhythm: regular. PR: 0.14 sec. QRS: 0.08 sec. Axis: +45°.",
        "rate=150; regular rhythm; PR interval=140; QRS duration=80; axis=45",
    ),
]
NUMBERS_IN_WORDS = [
    ("72 bpm", "rate=72"),
    ("Sinus rhythm, 72 beats per minute.", "sinus rhythm; rate=72"),
    ("Heart rate of 50-60.", "rate=50..60"),
    ("The rate is between 110 and 120 beats per minute.", "rate=110..120"),
    ("A ventricular rate of about 150/min.", "rate=150"),
    ("HR 130", "rate=130"),
    ("The heart rate is above 100 bpm.", "rate>100"),
    ("The heart rate is less than 60 bpm.", "rate<60"),
    ("The ventricular rate is 300/4 = 75 bpm.", "rate=75"),
    ("Atrial rate 300 bpm, ventricular rate 150 bpm.", "atrial rate=300; rate=150"),
    ("PR interval 0.16 s.", "PR interval=160"),
    ("PR of 210 msec", "PR interval=210"),
    ("QRS duration 96 ms", "QRS duration=96"),
    ("QRS complexes are wide (>120 ms).", "wide QRS; QRS duration>120"),
    ("QT/QTc 380/410 ms", "QT interval=380; QTc interval=410"),
    ("PR/QRS/QT: 160/90/380", "PR interval=160; QRS duration=90; QT interval=380"),
    ("QTc is prolonged at 510 ms.", "long QT; QTc interval=510"),
    ("QTc (Bazett) 430 ms", "QTc interval=430"),
    ("P-R-T axes 50 60 45", "axis=60"),
    ("The QRS axis is -60 degrees.", "axis=-60"),
    ("Axis between 0 and 90 degrees.", "axis=0..90"),
    ("P axis 60 degrees, T axis 45 degrees.", ""),
    ("A sinus pause of 3.2 s.", "pause; pause=3200"),
    ("The R-R interval is 800 ms.", "RR interval=800"),
    # quoted normal ranges, runs and other ECGs state nothing about this one
    ("The heart rate is 42 bpm, below the normal range of 60-100 bpm.", "rate=42"),
    ("The PR interval is 160 ms (normal: 120-200 ms).", "PR interval=160"),
    ("QT 400 ms (normal < 440 ms).", "QT interval=400"),
    ("The PR interval is normal at 160 ms.", "normal PR; PR interval=160"),
    ("A run of ventricular beats at 180 bpm.", ""),
    ("The previous ECG had a rate of 120 bpm.", ""),
    ("QRS amplitude 1.5 mV in V5.", ""),
    ("The 12-lead ECG was recorded at 25 mm/s.", ""),
]
WORDS = [
    ("Sinus tachycardia.", "sinus tachycardia"),
    ("Sinus bradycardia at 48.", "sinus bradycardia"),
    ("There is tachycardia.", "tachycardia"),
    ("Supraventricular tachycardia.", "supraventricular tachycardia"),
    ("Regular narrow-complex tachycardia.", "regular rhythm; narrow QRS; tachycardia"),
    ("The rhythm is regular.", "regular rhythm"),
    ("The RR intervals are irregular.", "irregular rhythm"),
    ("The heart rate is within the normal range.", "normal rate"),
    ("Atrial flutter with 2:1 block.", "atrial flutter"),
    ("AFIB, LBBB", "atrial fibrillation; left bundle branch block"),
    ("Normal sinus rhythm.", "normal sinus rhythm"),
    ("There is a P wave before each QRS complex.", "P waves"),
    ("First-degree AV block.", "first-degree AV block"),
    ("1st degree atrioventricular block", "first-degree AV block"),
    ("The PR interval is prolonged.", "long PR"),
    ("The PR interval is short.", "short PR"),
    ("The QRS complex is narrow.", "narrow QRS"),
    ("Complete right bundle-branch block.", "right bundle branch block"),
    ("Incomplete RBBB.", "incomplete RBBB"),
    ("Left anterior hemiblock.", "left anterior fascicular block"),
    ("Prolonged QTc interval.", "long QT"),
    ("PR, QRS and QT intervals are within normal limits.", "normal PR; narrow QRS; normal QT"),
    ("Normal intervals and axis.", "normal PR; narrow QRS; normal QT; normal axis"),
    ("The cardiac axis is normal.", "normal axis"),
    ("The axis is deviated to the right.", "right axis deviation"),
    ("ST elevation in leads II, III and aVF.", "ST elevation@II III aVF"),
    ("ST-segment elevation (2 mm) in V1 through V4.", "ST elevation@V1 V2 V3 V4"),
    ("In leads V1-V3 there is ST elevation.", "ST elevation@V1 V2 V3"),
    ("Inferior STEMI.", "ST elevation@II III aVF"),
    ("The ST segment is elevated in the lateral leads.", "ST elevation@I aVL V5 V6"),
    (
        "ST elevation in V2-V4 with reciprocal ST depression in II, III and aVF.",
        "ST elevation@V2 V3 V4; ST depression@II III aVF",
    ),
    ("Inverted T waves in V4-V6.", "T-wave inversion@V4 V5 V6"),
    ("ST segments are isoelectric.", "-ST deviation"),
    ("Left ventricular hypertrophy with strain.", "left ventricular hypertrophy"),
    ("Left ventricular hypertrophy by voltage.", "left ventricular hypertrophy by voltage"),
    ("Voltage criteria for LVH are met.", "left ventricular hypertrophy by voltage"),
    ("Low voltage in the limb leads.", "low voltage"),
    ("Ventricular-paced rhythm.", "paced rhythm"),
    ("Asystole: no electrical activity.", "asystole"),
    ("Frequent PVCs and rare PACs.", "ventricular ectopic beats; atrial ectopic beats"),
    ("Normal ECG.", "normal ECG"),
    ("The electrocardiogram is within normal limits.", "normal ECG"),
    ("No abnormalities are seen.", "normal ECG"),
]
DENIALS = [
    ("No ST elevation.", "-ST elevation"),
    (
        "No ST elevation, ST depression or T wave inversion.",
        "-ST elevation; -ST depression; -T-wave inversion",
    ),
    (
        "There is no significant ST-segment elevation or depression.",
        "-ST elevation; -ST depression",
    ),
    ("Without evidence of atrial fibrillation.", "-atrial fibrillation"),
    ("The ECG does not show ST elevation.", "-ST elevation"),
    ("ST elevation is not seen.", "-ST elevation"),
    ("ST elevation or depression is absent.", "-ST elevation; -ST depression"),
    ("P waves are absent.", "-P waves"),
    ("The absence of P waves suggests another rhythm.", "-P waves"),
    ("No LBBB or RBBB.", "-left bundle branch block; -right bundle branch block"),
    ("The PR interval is not prolonged.", "-long PR"),
    ("This is not a normal ECG.", "-normal ECG"),
    ("This is not atrial fibrillation but sinus rhythm.", "-atrial fibrillation; sinus rhythm"),
    ("The rhythm is not regular.", "-regular rhythm"),
    ("No pauses or paced beats.", "-pause; -paced rhythm"),
    ("No ST elevation, normal axis, sinus rhythm.", "-ST elevation; normal axis; sinus rhythm"),
    ("There is no ST elevation, and the QRS is wide.", "-ST elevation; wide QRS"),
    ("Normal QRS duration, indicating no bundle branch block.", "narrow QRS; -bundle branch block"),
]
NO_CLAIM = [
    "Cannot exclude ST elevation.",
    "Rule out atrial fibrillation.",
    "Possible left ventricular hypertrophy.",
    "Atrial fibrillation cannot be excluded.",
    "Left bundle branch block is likely.",
    "Suspected ST elevation in V2.",
    "Borderline prolonged QT interval.",
    "The patient has a history of atrial fibrillation.",
    "Otherwise normal ECG.",
    "Abnormal ECG.",
    "NSTEMI.",
    "Sinus tachycardia is defined as a rate above 100 bpm.",
    "If atrial fibrillation is present, anticoagulation should be considered.",
    "Is there ST elevation?",
    "Nonspecific ST-T changes.",
    "There is a risk of ventricular tachycardia.",
    "The rhythm is slightly irregular.",
    "An old infarction.",
    "There is no PR interval in atrial fibrillation.",
    "When compared with ECG of 25-SEP-2014, Vent. rate has decreased BY 40 BPM.",
    "",
]


@pytest.mark.parametrize(("text", "expected"), [*REPORTS, *NUMBERS_IN_WORDS, *WORDS, *DENIALS])
def test_statements_of_a_text(text: str, expected: str) -> None:
    assert sorted(map(notation, claims_in(text))) == sorted(filter(None, expected.split("; ")))


@pytest.mark.parametrize("text", NO_CLAIM)
def test_a_doubt_or_a_general_remark_is_no_claim(text: str) -> None:
    assert [notation(claim) for claim in claims_in(text)] == []


@pytest.mark.parametrize(
    "text", ["No ST elevation and left bundle branch block.", "No ST elevation, LBBB."]
)
def test_an_ambiguous_denial_leaves_out_what_it_may_not_cover(text: str) -> None:
    assert [notation(claim) for claim in claims_in(text)] == ["-ST elevation"]


def test_offsets_point_at_the_words() -> None:
    text = "  Sinus rhythm.\nHeart rate 72 bpm; no ST elevation.\n"
    for claim in claims_in(text):
        assert text[claim.start : claim.end] == claim.text
    assert [claim.text for claim in claims_in(text)] == [
        "Sinus rhythm",
        "Heart rate 72 bpm",
        "ST elevation",
    ]


def test_offsets_hold_in_any_order_of_words() -> None:
    rng = random.Random(3)
    words = " ".join(text for text, _ in (*REPORTS, *NUMBERS_IN_WORDS, *WORDS, *DENIALS)).split()
    for _ in range(300):
        text = " ".join(
            rng.choices([*words, "no", "and", "or", ",", "but", ";", "\n", "(", "V1-"], k=60)
        )
        for claim in claims_in(text):
            assert text[claim.start : claim.end] == claim.text
            assert claim.start < claim.end
            assert claim.low is None or claim.high is None or claim.low <= claim.high


def test_about_is_a_rough_number() -> None:
    assert [claim.rough for claim in claims_in("A rate of about 150 bpm. A rate of 150 bpm.")] == [
        True,
        False,
    ]


@pytest.mark.parametrize(
    ("question", "answer", "expected"),
    [
        ("Does this ECG show atrial fibrillation?", "Yes.", ["atrial fibrillation"]),
        (
            "Does this ECG show ST elevation? Options: yes, no Only answer based on the options.",
            "no",
            ["-ST elevation"],
        ),
        ("Is this a normal ECG?", "Yes", ["normal ECG"]),
        ("What is the rhythm?", "Yes", []),
        ("Does this ECG show an old infarction?", "Yes.", []),
        ("Which is it?\nA. sinus tachycardia\nB. 72 bpm", "B", ["rate=72"]),
        ("Which is it?\nA. sinus tachycardia\nB. 72 bpm", "A.", ["sinus tachycardia"]),
        ("Which is it?\nA. sinus tachycardia\nB. 72 bpm", "C", []),
    ],
)
def test_short_answers_take_their_topic_from_the_question(
    question: str, answer: str, expected: list[str]
) -> None:
    assert [notation(claim) for claim in claims_in(answer, question)] == expected


@pytest.mark.parametrize(
    ("words", "leads"),
    [
        ("V1-V4", "V1 V2 V3 V4"),
        ("v4-6", "V4 V5 V6"),
        ("V5,6", "V5 V6"),
        ("II, III and aVF", "II III aVF"),
        ("inferior and lateral", "I II III aVL aVF V5 V6"),
        ("anterolateral", "I aVL V3 V4 V5 V6"),
    ],
)
def test_leads_of_a_list_and_of_a_territory(words: str, leads: str) -> None:
    assert leads_of(words) == tuple(leads.split())


def test_every_claim_of_the_words_has_a_rule() -> None:
    topics = {
        claim.topic
        for text, _ in (*REPORTS, *NUMBERS_IN_WORDS, *WORDS, *DENIALS)
        for claim in claims_in(text)
    }
    assert topics <= {rule.topic for rule in (*RULES, *NUMBERS)}
    assert len(topics) > 45


def test_the_names_of_the_fixed_list_are_read() -> None:
    unread = {s.key for s in STATEMENTS if not claims_in(f"This ECG shows {s.name}.")}
    assert unread == {"2AVB", "3AVB", "RVH", "ISC", "MI", "OLDMI"}


def test_a_long_text_of_repeated_words_comes_to_an_end() -> None:
    """A pattern that backtracks exponentially would never end."""
    assert claims_in("QRS QT PR axis ST normal rate no and or " * 100) != ()
