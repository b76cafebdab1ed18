"""From another machine of the network: no port without --phone, and with it only pairing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import namespace
import pytest
from checkout import ROOT
from web_server import KIT

ABSENCE = namespace.why_not()
pytestmark = pytest.mark.skipif(ABSENCE is not None, reason=str(ABSENCE))


def seen_from_another_machine(tmp_path: Path, *options: str) -> dict[str, dict[str, object]]:
    """Run the server in one network and a client in another, joined by a cable; return what the
    client got for each address."""
    script = Path(namespace.__file__).with_name("two_machines.py")
    words = [*namespace.UNSHARE, sys.executable, str(script), str(tmp_path), str(KIT), *options]
    names = ("XDG_CACHE_HOME", "XDG_STATE_HOME", "PULSE_EDGE_AUDIT_LOG", "PULSE_EDGE_CACHE")
    places = {name: str(tmp_path / name.lower()) for name in names}
    done = subprocess.run(
        words, env={**os.environ, **places}, cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_without_phone_no_port_is_reached_from_another_machine(tmp_path: Path) -> None:
    statuses = seen_from_another_machine(tmp_path)
    assert statuses["own machine"]["status"] == 401
    assert "refused" in str(statuses["page"]["error"])
    assert "refused" in str(statuses["phones"]["error"])


def test_with_phone_only_a_code_opens_the_port_of_phones(tmp_path: Path) -> None:
    statuses = seen_from_another_machine(tmp_path, "--phone")
    assert statuses["own machine"]["status"] == 401
    assert "refused" in str(statuses["page"]["error"])
    assert statuses["phones"]["status"] == 401
    assert statuses["wrong code"]["status"] == 403
    assert statuses["upload"]["status"] == 401
