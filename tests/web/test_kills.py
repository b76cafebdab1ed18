"""kill -9 of the server and of its workers: no page is lost, and none is answered twice."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest
from killed_server import TARGETS, assert_each_answered_once, under_kills
from web_server import WebServer

PAGES = 6
pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


def test_every_page_is_answered_once_under_kills(tmp_path: Path) -> None:
    dice = random.Random(7)
    with WebServer(tmp_path, "--no-measure") as server:
        ids = [server.upload(f"{n}.png") for n in range(PAGES)]
        targets = [*TARGETS, *TARGETS]
        dice.shuffle(targets)
        killed = under_kills(server, targets, 1.0, dice)
        assert "server" in killed
        assert_each_answered_once(server, ids, 300)
