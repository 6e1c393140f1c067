"""The short form of scripts/fuzz.py: every operation, with requests made from the document, against a real server."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CASES, SEED = 400, 8970


def test_no_request_that_the_document_suggests_gets_an_answer_that_it_does_not_describe():
    """Otherwise the output shows the request as a curl command, and `scripts/fuzz.py --seed` makes it again."""
    command = [sys.executable, str(ROOT / "scripts/fuzz.py"), "--cases", str(CASES), "--seed", str(SEED)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    print(ended.stdout)
    assert ended.returncode == 0, ended.stdout + ended.stderr[-4000:]
    assert f"{CASES} requests, seed {SEED}: 0 failed" in ended.stdout
    assert len(re.findall(r"^\w+ +[\d ]+$", ended.stdout, re.MULTILINE)) > 20
