"""The page's words for keys of the program: checks of the picture, measurements, verdicts, stages.

Each text is marked for translation here, and translated where the page shows it. Standard library
only: the server loads no engine, so the texts of `page` and `measurement` stand here a second time,
and a test compares both.
"""

from __future__ import annotations

from pulse_edge.web.catalogue import N_

ADVICE = {
    "unfilled": (
        N_("{value:.0%} of the picture is of one flat colour, as in a file that is cut short."),
        N_("Copy the file or scan the page again."),
    ),
    "dark": (
        N_("The page is light on dark, as on a screen."),
        N_("Print it, or invert its colours, and read that."),
    ),
    "ecgs": (
        N_("There seem to be two ECGs on the picture."),
        N_("Scan or cut them out one by one: an answer is about one patient."),
    ),
    "ecg": (
        N_("This does not look like an ECG page."),
        N_("Check that the right file or sheet was taken."),
    ),
    "leads": (
        N_("Not all 12 leads are on the picture: {value:.0f} rows of traces were found."),
        N_("Take the picture again with the whole sheet in view."),
    ),
    "orientation": (
        N_("It is not clear which way is up."),
        N_("Check that the page is the right way up."),
    ),
    "mirrored": (
        N_("The picture shows the page as a mirror does."),
        N_("Compare the names of the leads with the original, and take it again from the front."),
    ),
    "stretched": (
        N_("The picture was stretched {value:.2f} times in one direction, as by a fax."),
        N_("Compare intervals and heights with the original."),
    ),
    "part": (
        N_("The ECG takes only {value:.0%} of the picture, and was cut out of it."),
        N_("Crop the picture to the ECG."),
    ),
    "resolution": (
        N_(
            "The picture is too small: it has {value:.1f} pixels for a millimetre of paper, and "
            "{threshold:g} are needed."
        ),
        N_("Go closer, or scan at 300 dpi."),
    ),
    "sharpness": (
        N_(
            "The picture is blurred: the edge of the trace is {value:.1f} mm wide, and "
            "{threshold:g} mm is the limit."
        ),
        N_("Hold still, tap on the trace to focus, and take it again."),
    ),
    "contrast": (
        N_(
            "The trace is too pale: {value:.0%} darker than the paper, and {threshold:.0%} is "
            "needed."
        ),
        N_("Take the picture in brighter light, or print the page darker."),
    ),
    "moire": (
        N_("A pattern of dots or stripes lies over the page."),
        N_("Do not photograph a screen: print the ECG, or export it as a file."),
    ),
    "glare": (
        N_("Light is reflected by {value:.0%} of the page."),
        N_("Turn the lamp or the sheet, and take it again without flash."),
    ),
    "shadow": (
        N_(
            "A shadow lies on the sheet: its darkest part has {value:.0%} of the light of the "
            "brightest, and {threshold:.0%} is needed."
        ),
        N_("Move away from the light, and take it again."),
    ),
    "uneven": (
        N_("The page is bent or seen too steeply to be flattened."),
        N_("Lay the sheet flat, and take it from straight above."),
    ),
    "cut off": (
        N_("The trace runs out of the picture in {value:.0f} places."),
        N_("Take it again with the whole sheet in view."),
    ),
    "grid": (
        N_("No grid is visible, so the scale is unknown."),
        N_("Take it sharper and closer, if the paper has a grid."),
    ),
    "layout": (
        N_("The arrangement of the leads is unusual or not clear."),
        N_("Check that the page is a 12-lead ECG."),
    ),
}
"""Check of a picture -> what is wrong (a format string), and what to do about it."""

MEASUREMENTS = {
    "asystole": N_("Ventricular activity"),
    "rate": N_("Rate, mean"),
    "rate_median": N_("Rate, median"),
    "regular": N_("Regularity"),
    "pauses": N_("Pauses of 2 s or more"),
    "ectopic": N_("Premature beats"),
    "paced": N_("Pacemaker spikes"),
    "p_present": N_("P waves"),
    "atrial_fibrillation": N_("Sign of atrial fibrillation"),
    "pr": N_("PR interval"),
    "qrs": N_("QRS duration"),
    "qt": N_("QT interval"),
    "qtc_bazett": N_("QTc (Bazett)"),
    "qtc_fridericia": N_("QTc (Fridericia)"),
    "qrs_axis": N_("QRS axis"),
    "t_axis": N_("T axis"),
    "sokolow_lyon": N_("Sokolow-Lyon voltage"),
    "cornell": N_("Cornell voltage"),
    "limb_voltage": N_("Highest limb lead"),
}
"""Measurement -> its name, in the order of a report."""
TILES = ("rate", "pr", "qrs", "qt", "qtc_fridericia", "qrs_axis")
"""The measurements that are shown large."""
PHRASES = {
    "asystole": (N_("present"), N_("NONE, OR LEADS OFF")),
    "regular": (N_("irregular"), N_("regular")),
    "paced": (N_("none"), N_("present")),
    "p_present": (N_("none at a constant distance"), N_("before the QRS")),
    "atrial_fibrillation": (N_("none"), N_("irregular without P waves")),
}
"""Yes-or-no measurement -> words for no, words for yes."""
COUNTS = frozenset({"pauses", "ectopic"})
UNITS = {"bpm": N_("bpm"), "ms": N_("ms"), "mV": N_("mV"), "degrees": "°"}
ST_LEVEL = "st_j60."
ST_SHOWN = 0.1
"""mV: an ST level at least one small square away from the baseline is shown."""

URGENCIES = {1: N_("Act now"), 2: N_("Soon"), 3: N_("Note"), 4: N_("Nothing to do")}
FINDING_VERDICTS = {
    "present": N_("present"),
    "absent": N_("absent"),
    "uncertain": N_("uncertain"),
}
CHECK_VERDICTS = {
    "contradicted": ("✗", N_("contradicted")),
    "supported": ("✓", N_("supported")),
    "not measurable": ("?", N_("not measurable")),
}
"""Verdict on a statement -> its symbol and word, the contradictions first."""
PAGE_VERDICTS = {
    "good": ("✓", N_("Good picture")),
    "usable": ("!", N_("Usable picture")),
    "refused": ("✗", N_("Picture refused")),
}
STATES = {
    "checking": N_("Checking the picture"),
    "refused": N_("Picture refused"),
    "waiting": N_("Waiting to be read"),
    "reading": N_("Being read"),
    "done": N_("Read"),
    "failed": N_("Not read"),
    "removed": N_("Removed"),
}
TURN_STATES = {
    "waiting": N_("waiting"),
    "running": N_("being answered"),
    "done": N_("answered"),
    "stopped": N_("stopped"),
    "failed": N_("failed"),
}
STAGES = {
    "check": N_("Checking the picture"),
    "wait": N_("Waiting to be read"),
    "load": N_("Loading the model"),
    "encode": N_("Looking at the page"),
    "prefill": N_("Reading the page"),
    "answer": N_("Writing the text"),
    "findings": N_("Judging findings"),
    "log": N_("Writing the audit log"),
}
"""Stage of a reading -> what the page says meanwhile."""
MODEL_STATES = {
    "loading": N_("The model is being loaded. Pages can be sent already."),
    "ready": N_("The model is ready."),
    "failed": N_("The model could not be loaded. Pictures are checked and measured all the same."),
}
SOURCES = {"local": N_("this computer"), "phone": N_("phone"), "api": N_("another program")}
READER_VERDICTS = {
    "present": N_("present"),
    "absent": N_("absent"),
    "not assessable": N_("not assessable on this page"),
}
"""A reader's verdict on a finding."""
TEXT_DECISIONS = {
    "agreed": N_("Agree"),
    "changed": N_("Change: use the edited text"),
    "rejected": N_("Reject: do not use it"),
}
OUTCOMES = {
    "agreed": N_("Confirmed without change."),
    "changed": N_("Confirmed with changes."),
    "rejected": N_("Rejected as a whole: do not use it."),
}
"""What the reader's decisions come to."""
PROVENANCE = {
    "kit": N_("Kit"),
    "kit_sha256": N_("Kit SHA-256"),
    "page_sha256": N_("Page SHA-256"),
    "device": N_("Device"),
    "seconds": N_("Time taken"),
    "versions": N_("Versions"),
}
ST_NAME = N_("ST level at J + 60 ms")
