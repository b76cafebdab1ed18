"""What a measurement must be for a statement to hold: one table for numbers, one for words, one for
children's limits.

A statement is contradicted where a limit of `needs` fails by more than the measurement's
uncertainty and the limit's slack. A denial is contradicted where every limit of `proves` holds by
more than both. `slack` is the clinical tolerance: how far apart two careful readers are, or how
loosely the word is used. Uncertainty and slack are independent, so they add in squares.

Sources

AHA I to VI  AHA/ACC/HRS recommendations for the standardization and interpretation of the
             electrocardiogram: Kligfield 2007 (I), Mason 2007 (II, a list of statements without
             limits), Surawicz 2009 (III, conduction and axis), Rautaharju 2009 (IV, ST, T, QT),
             Hancock 2009 (V, hypertrophy), Wagner 2009 (VI, ischaemia)
UDMI         Fourth Universal Definition of Myocardial Infarction, ESC/ACC/AHA/WHF 2018: ST limits
             by lead, sex and age
SVT          ACC/AHA/HRS 2015 guideline for supraventricular tachycardia
VA           AHA/ACC/HRS 2017 guideline for ventricular arrhythmias
AF           ESC 2020 guideline for atrial fibrillation
BRADY        ACC/AHA/HRS 2018 guideline for bradycardia and conduction delay
WHO          WHO/ISFC task force on conduction disturbances and pre-excitation: Willems 1985
Chinitz      J Electrocardiol 41 (2008) 281: low voltage
Grauer       Grauer and Leytem, Am Fam Physician 45 (1992) 1641: pauses
RIJNBEEK     Eur Heart J 22 (2001) 702: limits of children for rate, PR and axis by age
usual        what textbooks teach; no guideline was at hand that states it

docs/checks.md says which of them were compared with the published text.
"""

from __future__ import annotations

from pulse_edge.measurement.bounds import UPRIGHT_T, AllOf, AnyOf, Bound, Not
from pulse_edge.measurement.rule import Rule

BEATS = Bound("asystole", at_most=0)
P_WAVES = Bound("p_present", at_least=1)
NO_P_WAVES = Bound("p_present", at_most=0)
REGULAR = Bound("rr_variation", at_most=0.08)
IRREGULAR = Bound("rr_variation", at_least=0.08)
"""Sinus rhythm has a variation of 0.08 or less in 9 of 10 recordings, atrial fibrillation of 0.09
to 0.3."""
NOT_PACED = Bound("paced", at_most=0)
FAST = AnyOf(
    tuple(Bound(key, at_least=100, slack=5, scale="rate") for key in ("rate", "rate_median"))
)
SLOW = AnyOf(
    tuple(Bound(key, at_most=60, slack=5, scale="rate") for key in ("rate", "rate_median"))
)
WIDE = Bound("qrs", at_least=120, slack=10, scale="QRS")
NARROW = Bound("qrs", at_most=120, slack=10, scale="QRS")
WIDE_BY_VALUE = Bound("qrs", at_least=120, scale="QRS", nominal=True)
NO_SECONDARY_ST = (
    Bound("qrs", at_most=120, nominal=True),
    NOT_PACED,
    Bound("sokolow_lyon", at_most=3.5),
)
"""ST limits hold without bundle branch block, pacing or left ventricular hypertrophy (UDMI)."""
SINUS = (BEATS, AnyOf((P_WAVES, REGULAR)))
"""A missed P wave alone contradicts no sinus rhythm: RR intervals must be irregular too."""

ELEVATED = AnyOf(
    (
        Bound(
            "st_j.LEAD", at_least=0.0, slack=0.05, contiguous=True, nominal=True, scale="ST lowest"
        ),
        Bound(
            "st_j60.LEAD",
            at_least=0.05,
            slack=0.05,
            contiguous=True,
            nominal=True,
            scale="ST lowest",
        ),
    )
)
"""At J by UDMI; 60 ms later, where some read it, the ST segment of healthy people has risen by
another 0.05 mV."""
DEPRESSED = AnyOf(
    (
        Bound("st_j.LEAD", at_most=-0.05, slack=0.03, contiguous=True, nominal=True),
        Bound("st_j60.LEAD", at_most=-0.05, slack=0.03, contiguous=True, nominal=True),
    )
)
ELEVATION = (
    Bound("st_j.LEAD", at_least=0.0, contiguous=True, scale="ST"),
    Bound("st_j60.LEAD", at_least=0.0, contiguous=True, scale="ST"),
    *NO_SECONDARY_ST,
)
DEPRESSION = (
    Bound("st_j.LEAD", at_most=-0.05, slack=0.03, contiguous=True, nominal=True),
    Bound("st_j60.LEAD", at_most=-0.1, contiguous=True),
    *NO_SECONDARY_ST,
)
LVH = (
    Bound("sokolow_lyon", at_least=3.5, slack=0.3),
    Bound("cornell", at_least=2.8, women=2.0, slack=0.3),
    Bound("peguero", at_least=2.8, women=2.3, slack=0.3),
    Bound("r.aVL", at_least=1.1, slack=0.1),
)

RULES = (
    # --- rate and rhythm
    Rule("tachycardia", (BEATS, FAST), (FAST,), "SVT: above 100 bpm"),
    Rule("bradycardia", (BEATS, SLOW), (SLOW,), "usual: below 60 bpm; BRADY takes 50 bpm"),
    Rule(
        "normal rate",
        (BEATS, Bound("rate", 60, 100, 10, scale="rate")),
        (),
        "usual: 60 to 100 bpm",
    ),
    Rule("sinus tachycardia", (*SINUS, FAST), (P_WAVES, FAST), "AHA II", supports=(P_WAVES,)),
    Rule("sinus bradycardia", (*SINUS, SLOW), (P_WAVES, SLOW), "AHA II", supports=(P_WAVES,)),
    Rule("sinus rhythm", SINUS, (P_WAVES, REGULAR, NOT_PACED), "AHA II", supports=(P_WAVES,)),
    Rule(
        "normal sinus rhythm",
        (*SINUS, Bound("rate", 60, 100, 10, scale="rate")),
        (),
        "usual: 60 to 100 bpm",
    ),
    Rule("sinus arrhythmia", SINUS, (), "AHA II", decides=False),
    Rule(
        "regular rhythm",
        (BEATS, Bound("rr_variation", at_most=0.10, slack=0.03)),
        (REGULAR,),
        "AHA II",
    ),
    Rule(
        "irregular rhythm",
        (BEATS, AnyOf((IRREGULAR, Bound("ectopic", at_least=1), Bound("rr_spread", at_least=160)))),
        (Bound("rr_variation", at_least=0.10, slack=0.03),),
        "usual: PP intervals that differ by more than 160 ms",
    ),
    Rule(
        "atrial fibrillation",
        (BEATS, AnyOf((NO_P_WAVES, IRREGULAR, Bound("atrial_fibrillation", at_least=1)))),
        (Bound("atrial_fibrillation", at_least=1),),
        "AF: irregular RR intervals without P waves",
        supports=(NO_P_WAVES, IRREGULAR),
    ),
    Rule("atrial flutter", (BEATS,), (), "SVT: flutter waves are not measured", decides=False),
    Rule("supraventricular tachycardia", (BEATS, FAST), (), "SVT: above 100 bpm", decides=False),
    Rule(
        "ventricular tachycardia",
        (BEATS, FAST, WIDE),
        (),
        "VA: above 100 bpm, QRS 120 ms or more",
        decides=False,
    ),
    Rule("P waves", SINUS, (P_WAVES, REGULAR), "AHA II", supports=(P_WAVES,)),
    Rule("asystole", (Bound("asystole", at_least=1),), (Bound("asystole", at_least=1),), "AHA II"),
    Rule(
        "pause",
        (Bound("rr_longest", at_least=2000, slack=400),),
        (Bound("rr_longest", at_least=2000, slack=100), Bound("rate", at_least=40, slack=5)),
        "Grauer: RR intervals above 2 s; BRADY calls 3 s a sinus pause",
    ),
    Rule(
        "paced rhythm",
        (BEATS, AnyOf((Bound("paced", at_least=1), WIDE_BY_VALUE, NO_P_WAVES))),
        (Bound("paced", at_least=1),),
        "BRADY: spikes may be too small to see, so that a wide QRS leaves it open",
        supports=(Bound("paced", at_least=1),),
    ),
    Rule(
        "ventricular ectopic beats",
        (BEATS, AnyOf((Bound("ectopic", at_least=1), Bound("rr_spread", at_least=200), IRREGULAR))),
        (Bound("ventricular_ectopic", at_least=1),),
        "AHA II",
        supports=(Bound("ectopic", at_least=1),),
    ),
    Rule(
        "atrial ectopic beats",
        (BEATS, AnyOf((Bound("ectopic", at_least=1), Bound("rr_spread", at_least=200), IRREGULAR))),
        (Bound("supraventricular_ectopic", at_least=1), Bound("rr_spread", at_least=250)),
        "AHA II",
        supports=(Bound("ectopic", at_least=1),),
    ),
    Rule(
        "ectopic beats",
        (BEATS, AnyOf((Bound("ectopic", at_least=1), Bound("rr_spread", at_least=200), IRREGULAR))),
        (Bound("ectopic", at_least=1),),
        "AHA II",
        supports=(Bound("ectopic", at_least=1),),
    ),
    # --- conduction
    Rule(
        "first-degree AV block",
        (*SINUS, Bound("pr", at_least=200, slack=5, scale="PR")),
        (P_WAVES, Bound("pr", at_least=200, slack=5, scale="PR")),
        "BRADY: PR above 200 ms",
    ),
    Rule(
        "long PR",
        (Bound("pr", at_least=200, slack=5, scale="PR"),),
        (Bound("pr", at_least=200, slack=5, scale="PR"),),
        "BRADY: PR above 200 ms",
    ),
    Rule(
        "short PR",
        (Bound("pr", at_most=120, slack=15),),
        (Bound("pr", at_most=120, slack=15),),
        "WHO: below 120 ms",
    ),
    Rule("normal PR", (Bound("pr", 120, 200, 15, scale="PR"),), (), "WHO, BRADY: 120 to 200 ms"),
    Rule(
        "wide QRS",
        (Bound("qrs", at_least=120, slack=15, scale="QRS"),),
        (WIDE,),
        "AHA III: 120 ms or more",
    ),
    Rule("narrow QRS", (NARROW,), (), "AHA III: below 120 ms"),
    Rule(
        "left bundle branch block",
        (
            WIDE,
            Bound("net.V1", at_most=0.0, slack=0.2),
            AnyOf(
                (
                    WIDE_BY_VALUE,
                    AllOf(
                        (
                            Bound("t.V6", at_most=0.0, slack=0.05, nominal=True),
                            Bound("q.V6", at_least=0.0, slack=0.05, nominal=True),
                        )
                    ),
                )
            ),
        ),
        (
            Bound("qrs", at_least=140, scale="QRS", nominal=True),
            Bound("net.V1", at_most=-0.3),
            Bound("net.I", at_least=0.3),
            AnyOf(
                (
                    Bound("t.V6", at_most=0.0, nominal=True),
                    Bound("qrs", at_least=150, scale="QRS", nominal=True),
                )
            ),
            NOT_PACED,
        ),
        "AHA III: 120 ms, S in V1, no q in V6, T opposite to the QRS; Strauss 2011: 140 ms proves it",
    ),
    Rule(
        "right bundle branch block",
        (
            WIDE,
            AnyOf(
                (
                    Bound("r.V1", at_least=0.3),
                    Bound("net.V1", at_least=-0.3),
                    Bound("net.V2", at_least=0.0),
                )
            ),
            AnyOf(
                (
                    WIDE_BY_VALUE,
                    AllOf(
                        (
                            Bound("r.V1", at_least=0.4, slack=0.05, nominal=True),
                            Bound("net.V1", at_least=0.0, slack=0.2, nominal=True),
                        )
                    ),
                )
            ),
        ),
        (
            Bound("qrs", at_least=130, scale="QRS", nominal=True),
            Bound("net.V1", at_least=0.2),
            AnyOf((Bound("s.V6", at_most=-0.1), Bound("s.I", at_most=-0.1))),
            NOT_PACED,
        ),
        "AHA III: 120 ms, R' in V1 or V2, S in I and V6",
    ),
    Rule("bundle branch block", (WIDE,), (WIDE, NOT_PACED), "AHA III: 120 ms"),
    Rule("incomplete LBBB", (NARROW,), (), "AHA III: QRS of 110 to 119 ms", decides=False),
    Rule("incomplete RBBB", (NARROW,), (), "AHA III: QRS of 110 to 119 ms", decides=False),
    Rule(
        "conduction delay",
        (Bound("qrs", at_least=110, slack=10, scale="QRS"),),
        (),
        "AHA III: QRS above 110 ms",
        decides=False,
    ),
    Rule(
        "left anterior fascicular block",
        (Bound("qrs_axis", -90, -45, 15),),
        (),
        "AHA III: axis of -45 to -90 degrees",
        decides=False,
    ),
    Rule(
        "left posterior fascicular block",
        (Bound("qrs_axis", 90, 180, 15),),
        (),
        "AHA III: axis of 90 to 180 degrees",
        decides=False,
    ),
    Rule(
        "Wolff-Parkinson-White pattern",
        (Bound("pr", at_most=120, slack=20), Bound("qrs", at_least=110, slack=15)),
        (),
        "AHA III: PR below 120 ms, QRS above 120 ms; 110 ms here, for slight pre-excitation",
        decides=False,
        adults=True,
    ),
    Rule(
        "long QT",
        (
            AnyOf(
                (
                    Bound("qtc_bazett", at_least=450, women=460, slack=20),
                    Bound("qtc_fridericia", at_least=450, women=460, slack=20),
                )
            ),
        ),
        (
            Bound("qtc_bazett", at_least=450, women=460, slack=20),
            Bound("qtc_fridericia", at_least=450, women=460, slack=20),
        ),
        "AHA IV: QTc of 450 ms and more in men, 460 ms in women",
    ),
    Rule(
        "short QT",
        (Bound("qtc_fridericia", at_most=390, slack=20),),
        (),
        "AHA IV: QTc of 390 ms and less",
    ),
    Rule(
        "normal QT",
        (
            AnyOf(
                (
                    Bound("qtc_bazett", at_most=450, women=460, slack=30),
                    Bound("qtc_fridericia", at_most=450, women=460, slack=30),
                )
            ),
            AnyOf(
                (
                    Bound("qtc_bazett", at_least=390, slack=40),
                    Bound("qtc_fridericia", at_least=390, slack=40),
                )
            ),
        ),
        (),
        "AHA IV: QTc of 390 to 450 ms in men, 460 ms in women",
    ),
    # --- axis
    Rule(
        "normal axis",
        (Bound("qrs_axis", -30, 90, 15, scale="axis"),),
        (),
        "AHA III: -30 to 90 degrees",
    ),
    Rule(
        "left axis deviation",
        (Bound("qrs_axis", -90, -30, 15),),
        (Bound("qrs_axis", -90, -30, 15),),
        "AHA III: -30 to -90 degrees",
    ),
    Rule(
        "right axis deviation",
        (Bound("qrs_axis", 90, 180, 15),),
        (Bound("qrs_axis", 90, 180, 15),),
        "AHA III: 90 to 180 degrees",
        adults=True,
    ),
    Rule("extreme axis", (Bound("qrs_axis", 180, 270, 15),), (), "AHA III: 180 to 270 degrees"),
    # --- ST, T, voltage
    Rule(
        "ST elevation",
        (ELEVATED,),
        ELEVATION,
        "UDMI: J point of 0.1 mV; V2-V3 by sex and age",
        adults=True,
    ),
    Rule(
        "ST depression",
        (DEPRESSED,),
        DEPRESSION,
        "UDMI: 0.05 mV in two neighbouring leads",
        adults=True,
    ),
    Rule(
        "ST deviation",
        (AnyOf((ELEVATED, DEPRESSED)),),
        (AnyOf((AllOf(ELEVATION), AllOf(DEPRESSION))),),
        "UDMI",
        adults=True,
    ),
    Rule(
        "T-wave inversion",
        (Bound("t.LEAD", at_most=-0.1, slack=0.1, leads=(*UPRIGHT_T, "aVF", "V2")),),
        (Bound("t.LEAD", at_most=-0.2, contiguous=True, leads=UPRIGHT_T),),
        "AHA IV: T of -0.1 mV in leads with an R wave",
        adults=True,
    ),
    Rule(
        "left ventricular hypertrophy",
        (),
        (LVH[0], LVH[1], LVH[2]),
        "AHA V: Sokolow-Lyon, Cornell, Peguero; readers also go by other signs, so that low voltages leave it open",
        supports=(AnyOf(LVH),),
        adults=True,
    ),
    Rule(
        "left ventricular hypertrophy by voltage",
        (AnyOf(LVH),),
        (LVH[0], LVH[1], LVH[2]),
        "AHA V: Sokolow-Lyon, Cornell, Peguero, R in aVL",
        adults=True,
    ),
    Rule(
        "low voltage",
        (
            AnyOf(
                (
                    Bound("limb_voltage", at_most=0.5, slack=0.2),
                    Bound("chest_voltage", at_most=1.0, slack=0.3),
                )
            ),
        ),
        (Bound("limb_voltage", at_most=0.5), Bound("chest_voltage", at_most=1.0)),
        "Chinitz: QRS below 0.5 mV in all limb leads or 1 mV in all chest leads",
    ),
    # --- the whole
    Rule(
        "normal ECG",
        (
            *SINUS,
            NOT_PACED,
            Bound("rate", 60, 100, 20, scale="rate"),
            Bound("ventricular_ectopic", at_most=0),
            Bound("pr", 120, 200, 25, scale="PR"),
            NARROW,
            AnyOf(
                (
                    Bound("qtc_bazett", at_most=450, women=460, slack=30),
                    Bound("qtc_fridericia", at_most=450, women=460, slack=30),
                )
            ),
            Bound("qrs_axis", -30, 90, 20, scale="axis"),
            Not(AllOf(ELEVATION)),
            Not(AllOf(DEPRESSION)),
        ),
        (),
        "every limit of the rows above",
        decides=False,
    ),
)
