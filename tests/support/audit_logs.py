"""Helpers for tests of the audit log."""

from __future__ import annotations

from pathlib import Path

import pytest

from pulse_edge.audit_log.log import AuditLog
from pulse_edge.errors import AuditLogError


def verify_error(folder: Path) -> str:
    """The error of verify about a log that was tampered with."""
    with pytest.raises(AuditLogError) as raised:
        AuditLog(folder).verify()
    return str(raised.value)
