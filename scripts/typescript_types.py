#!/usr/bin/env python3
"""Write examples/typescript/schema.d.ts, the types of openapi/openapi.json.

    python scripts/typescript_types.py

Needs node, npx and the npm registry. The first line of the file holds the SHA-256 of the document that it was made
from: a test compares it, so that the types cannot fall behind unnoticed where there is no registry.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "openapi" / "openapi.json"
EXAMPLE = ROOT / "examples" / "typescript"
TYPES = EXAMPLE / "schema.d.ts"


def first_line() -> str:
    """What the types say of the document that they were made from."""
    return f"// Generated from openapi/openapi.json, SHA-256 {hashlib.sha256(DOCUMENT.read_bytes()).hexdigest()}\n"


def main() -> int:
    """Generate the file; the exit code of the generator."""
    npx = shutil.which("npx")
    if npx is None:
        print("npx is not installed: it comes with node (https://nodejs.org)", file=sys.stderr)
        return 2
    version = json.loads((EXAMPLE / "package.json").read_text())["devDependencies"]["openapi-typescript"]
    command = [npx, "--yes", f"openapi-typescript@{version}", str(DOCUMENT), "--output", str(TYPES)]
    ended = subprocess.run(command, check=False)
    if ended.returncode == 0:
        TYPES.write_text(first_line() + TYPES.read_text())
    return ended.returncode


if __name__ == "__main__":
    sys.exit(main())
