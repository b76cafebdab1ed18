"""The checks of a page: the limits that warn or refuse, and the advice for each."""

from __future__ import annotations

from dataclasses import dataclass

from pulse_edge.page.rectify import STRETCH_LIMIT


@dataclass(frozen=True)
class Limit:
    """The limits of one fact about a page."""

    unit: str
    warns: float | None
    """Value from which on the page is only `usable`; None: it never warns."""
    refuses: float | None
    """Value from which on the page is `refused`; None: it never refuses."""
    high_is_bad: bool
    """True: values above the limits are bad; False: values below them."""
    fact: str
    """What is wrong, for a nurse: a format string with `value` and `threshold`."""
    action: str
    """What to do about it."""


LIMITS = {
    "unfilled": Limit(
        "of the picture",
        None,
        0.02,
        True,
        "{value:.0%} of the picture is of one flat colour, as in a file that is cut short.",
        "Copy the file or scan the page again.",
    ),
    "dark": Limit(
        "of 255",
        None,
        60,
        False,
        "The page is light on dark, as on a screen.",
        "Print it, or invert its colours, and read that.",
    ),
    "ecgs": Limit(
        "ECGs",
        1,
        1.5,
        True,
        "There seem to be two ECGs on the picture.",
        "Scan or cut them out one by one: an answer is about one patient.",
    ),
    # Refusals were set where pages stop being readable; docs/intake.md has the curves.
    "ecg": Limit(
        "likelihood",
        None,
        0.5,
        False,
        "This does not look like an ECG page.",
        "Check that the right file or sheet was taken.",
    ),
    "leads": Limit(
        "leads",
        12,
        3,
        False,
        "Not all 12 leads are on the picture: {value:.0f} rows of traces were found.",
        "Take the picture again with the whole sheet in view.",
    ),
    "orientation": Limit(
        "log odds",
        5.0,
        None,
        False,
        "It is not clear which way is up.",
        "Check that the page is the right way up.",
    ),
    "mirrored": Limit(
        "mirror images",
        0,
        None,
        True,
        "The picture shows the page as a mirror does.",
        "Compare the names of the leads with the original, and take it again from the front.",
    ),
    "stretched": Limit(
        "times",
        STRETCH_LIMIT,
        None,
        True,
        "The picture was stretched {value:.2f} times in one direction, as by a fax.",
        "Compare intervals and heights with the original.",
    ),
    "part": Limit(
        "of the picture",
        0.999,
        None,
        False,
        "The ECG takes only {value:.0%} of the picture, and was cut out of it.",
        "Crop the picture to the ECG.",
    ),
    "resolution": Limit(
        "pixels/mm",
        3.0,
        2.0,
        False,
        "The picture is too small: it has {value:.1f} pixels for a millimetre of paper, and "
        "{threshold:g} are needed.",
        "Go closer, or scan at 300 dpi.",
    ),
    "sharpness": Limit(
        "mm",
        0.75,
        1.1,
        True,
        "The picture is blurred: the edge of the trace is {value:.1f} mm wide, and {threshold:g} "
        "mm is the limit.",
        "Hold still, tap on the trace to focus, and take it again.",
    ),
    "contrast": Limit(
        "of paper white",
        0.22,
        0.12,
        False,
        "The trace is too pale: {value:.0%} darker than the paper, and {threshold:.0%} is needed.",
        "Take the picture in brighter light, or print the page darker.",
    ),
    "moire": Limit(
        "waves over noise",
        16.0,
        22.0,
        True,
        "A pattern of dots or stripes lies over the page.",
        "Do not photograph a screen: print the ECG, or export it as a file.",
    ),
    "glare": Limit(
        "of the page",
        0.01,
        0.25,
        True,
        "Light is reflected by {value:.0%} of the page.",
        "Turn the lamp or the sheet, and take it again without flash.",
    ),
    "shadow": Limit(
        "darkest to lightest",
        0.35,
        0.12,
        False,
        "A shadow lies on the sheet: its darkest part has {value:.0%} of the light of the "
        "brightest, and {threshold:.0%} "
        "is needed.",
        "Move away from the light, and take it again.",
    ),
    "uneven": Limit(
        "of the grid's spacing",
        0.1,
        0.15,
        True,
        "The page is bent or seen too steeply to be flattened.",
        "Lay the sheet flat, and take it from straight above.",
    ),
    "cut off": Limit(
        "traces",
        1,
        None,
        True,
        "The trace runs out of the picture in {value:.0f} places.",
        "Take it again with the whole sheet in view.",
    ),
    "grid": Limit(
        "waves over noise",
        2.3,
        None,
        False,
        "No grid is visible, so the scale is unknown.",
        "Take it sharper and closer, if the paper has a grid.",
    ),
    "layout": Limit(
        "likelihood",
        0.4,
        None,
        False,
        "The arrangement of the leads is unusual or not clear.",
        "Check that the page is a 12-lead ECG.",
    ),
}
"""Check -> its limits, in the order in which people should correct them."""
