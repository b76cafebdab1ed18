"""pulse-edge: read 12-lead ECG pages with PULSE kits, offline.

with PulseModel.load("kit") as model:
    print(model.interpret("scan.jpg").answers[0].text)

Importing the package switches the telemetry of its engines off in this process (see `pulse_edge.common.child_process`): import it before
onnxruntime.
"""

# Nothing is imported here that a file in the current directory could stand in for: see pulse_edge/common/child_process.py.
from pulse_edge.common.child_process import be_quiet, enclose, named_by_m

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pulse_edge.inference.model import PulseModel
    from pulse_edge.inference.page_encoder import EncodedPage
    from pulse_edge.report.report import Answer, Report

__all__ = ["Answer", "EncodedPage", "PulseModel", "Report"]

be_quiet()
if named_by_m():
    enclose()


def __getattr__(name: str) -> object:
    """The public names, imported when first used: `pulse-edge --help` must not wait for the engines."""
    if name in ("PulseModel", "EncodedPage"):
        from pulse_edge.inference import model

        return getattr(model, name)
    if name in ("Answer", "Report"):
        from pulse_edge.report import report

        return getattr(report, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
