"""pulse-edge: read 12-lead ECG pages with PULSE kits, offline.

with PulseModel.load("kit") as model:
    print(model.interpret("scan.jpg").answers[0].text)

print(measure("scan.jpg")["rate"].value)  # from the trace, without a kit

Importing the package switches the telemetry of its engines off in this process (see
`pulse_edge.common.child_process`): import it before onnxruntime.
"""

# No module is imported here whose place a file in the current directory could take: see
# pulse_edge/common/child_process.py.
from pulse_edge.common.child_process import be_quiet, enclose, named_by_m

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pulse_edge.errors import PulseEdgeError
    from pulse_edge.inference.model import PulseModel
    from pulse_edge.inference.page_encoder import EncodedPage
    from pulse_edge.inference.request import Request
    from pulse_edge.measurement.measurements import Measurement
    from pulse_edge.measurement.page import PageMeasurement, measure
    from pulse_edge.report.report import Answer, Contradiction, Finding, Report

    __version__: str

__all__ = [
    "Answer",
    "Contradiction",
    "EncodedPage",
    "Finding",
    "Measurement",
    "PageMeasurement",
    "PulseEdgeError",
    "PulseModel",
    "Report",
    "Request",
    "__version__",
    "measure",
]
_MODULES = {
    "Answer": "pulse_edge.report.report",
    "Contradiction": "pulse_edge.report.report",
    "EncodedPage": "pulse_edge.inference.page_encoder",
    "Finding": "pulse_edge.report.report",
    "Measurement": "pulse_edge.measurement.measurements",
    "PageMeasurement": "pulse_edge.measurement.page",
    "PulseEdgeError": "pulse_edge.errors",
    "PulseModel": "pulse_edge.inference.model",
    "Report": "pulse_edge.report.report",
    "Request": "pulse_edge.inference.request",
    "measure": "pulse_edge.measurement.page",
}

be_quiet()
if named_by_m():
    enclose()


def __getattr__(name: str) -> object:
    """Import a public name when it is first used: `pulse-edge --help` must not wait for the
    engines."""
    if name == "__version__":
        from importlib.metadata import version

        return version("pulse-edge")
    if name in _MODULES:
        from importlib import import_module

        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
