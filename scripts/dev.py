#!/usr/bin/env python3
"""The commands of this repository, from nothing but a Python: they make `.venv`, install into it, and run in it.

    python3 scripts/dev.py demo [options]      train a real network with 4 worker processes through the service
    python3 scripts/dev.py test [pytest args]  everything, a real Redis included
    python3 scripts/dev.py lint                format, lint, strict types (what .ci/run asks first)
    python3 scripts/dev.py openapi [--check]   write openapi/openapi.json, or only compare it with the code
    python3 scripts/dev.py setup               only make .venv with everything installed

Standard library only. Runs from any folder, with Python 3.11 or newer, also on a Debian that has no pip and no venv
(`--help` of a command comes from the command itself).
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
STAMP = VENV / "gradserve-installed"  # what is installed, and from which pyproject.toml

OLDEST = (3, 11)
USE_EXTRAS = "service,demo"  # what `demo` needs
ALL_EXTRAS = "dev"  # includes the two above
AT_ONCE = ("--numprocesses=3", "--dist=loadfile")  # many tests wait for programs that they start
NO_PIP_EXIT = 2
CUDA_COMES = (
    "  this torch brings CUDA, several GB. A CPU build is enough: to have it instead, interrupt, show pip one "
    "(PIP_FIND_LINKS or PIP_EXTRA_INDEX_URL), and try again"
)


def main(arguments: list[str]) -> int:
    """Run one command; answers its exit code."""
    if sys.version_info < OLDEST:
        return run_with_newer_python(arguments)
    command, rest = (arguments[0], arguments[1:]) if arguments else ("", [])
    if command not in COMMANDS:
        print(__doc__)
        return 0 if command in {"", "-h", "--help", "help"} else 2
    return COMMANDS[command](rest)


# Commands


def demo(rest: list[str]) -> int:
    """`gradserve demo` in the environment."""
    return install(USE_EXTRAS) or run(PYTHON, "-m", "gradserve_service", "demo", *rest)


def test(rest: list[str]) -> int:
    """pytest over everything, several files at once, or over what the arguments name (paths are relative to the folder
    you are in), one after the other."""
    named = any(os.path.exists(word.split("::")[0]) for word in rest)
    where = [] if named else [*AT_ONCE, str(ROOT / "tests")]
    return install(ALL_EXTRAS) or run(PYTHON, "-m", "pytest", "--rootdir", ROOT, "-c", CONFIG, *where, *rest)


def lint(rest: list[str]) -> int:
    """Format, lint and strict types; runs all three and fails if one did."""
    if code := install(ALL_EXTRAS):
        return code
    os.chdir(ROOT)
    steps = (("ruff", "format", "--check", "."), ("ruff", "check", "."), ("mypy",))
    return max([step(PYTHON, "-m", *words) for words in steps])


def openapi(rest: list[str]) -> int:
    """Write the OpenAPI document that the code has now; with `--check`, only compare."""
    if code := install(ALL_EXTRAS):
        return code
    made = subprocess.run([PYTHON, "-m", "gradserve_service", "openapi"], capture_output=True, text=True, check=False)
    if made.returncode:
        print(made.stderr, end="", file=sys.stderr)
        return made.returncode
    written = ROOT / "openapi" / "openapi.json"
    if "--check" not in rest:
        written.parent.mkdir(exist_ok=True)
        written.write_text(made.stdout, encoding="utf-8")
        say(f"wrote {written.relative_to(ROOT)}")
        return 0
    if written.is_file() and written.read_text(encoding="utf-8") == made.stdout:
        say("openapi/openapi.json is what the code says")
        return 0
    say("openapi/openapi.json differs from the code: run `python3 scripts/dev.py openapi` and commit it")
    return 1


def setup(rest: list[str]) -> int:
    """The environment with everything in it."""
    return install(ALL_EXTRAS)


COMMANDS = {"demo": demo, "test": test, "lint": lint, "openapi": openapi, "setup": setup}
CONFIG = ROOT / "pyproject.toml"


# The environment


def install(extras: str) -> int:
    """Have `.venv` with these extras, made from the present pyproject.toml; answers 0 or the exit code to end with."""
    wanted = hashlib.sha256(CONFIG.read_bytes()).hexdigest()
    if not works(PYTHON, "import sys; sys.exit(sys.version_info < (3, 11))"):
        if code := make_environment():
            return code
    elif extras in installed(wanted):
        return 0
    if not works(PYTHON, "import pip") and (code := put_pip_in()):
        return code
    if ALL_EXTRAS in installed_before():
        extras = ALL_EXTRAS  # never take away what was there
    if code := pip_install(extras):
        return code
    STAMP.write_text(f"{wanted} {extras}\n", encoding="utf-8")
    return 0


def installed(wanted: str) -> set[str]:
    """The extras that are installed from this very pyproject.toml."""
    words = STAMP.read_text(encoding="utf-8").split() if STAMP.is_file() else []
    if words[:1] != [wanted]:
        return set()
    return {USE_EXTRAS, ALL_EXTRAS} if words[1] == ALL_EXTRAS else {words[1]}


def installed_before() -> set[str]:
    """The extras that some earlier pyproject.toml left."""
    return set(STAMP.read_text(encoding="utf-8").split()[1:]) if STAMP.is_file() else set()


def make_environment() -> int:
    """A fresh `.venv`, with pip where the interpreter can put one in by itself."""
    if VENV.exists():
        say("the Python of .venv is gone or too old: making it anew")
        shutil.rmtree(VENV)
    say(f"making .venv with Python {sys.version.split()[0]}")
    if not can_import("venv"):
        return make_with_virtualenv()
    if can_import("ensurepip") and step(sys.executable, "-m", "venv", VENV, quiet=True) == 0:
        return 0
    return step(sys.executable, "-m", "venv", "--clear", "--without-pip", VENV)


def make_with_virtualenv() -> int:
    """For an interpreter without the venv module: the virtualenv package makes the same folder."""
    if can_import("virtualenv"):
        return step(sys.executable, "-m", "virtualenv", "--quiet", VENV)
    for pip in pips():
        with tempfile.TemporaryDirectory() as borrowed:
            # --target is no installation into the system: PEP 668 lets it be.
            if step(*pip, "install", "--quiet", "--target", borrowed, "virtualenv") == 0:
                environment = {**os.environ, "PYTHONPATH": borrowed}
                return step(sys.executable, "-m", "virtualenv", "--quiet", VENV, environment=environment)
    return install_debian_package() or step(sys.executable, "-m", "venv", VENV)


def put_pip_in() -> int:
    """Get pip into an environment that has none: ensurepip, else any pip there is, else the distribution's package."""
    say("putting pip into .venv")
    if works(PYTHON, "import ensurepip") and step(PYTHON, "-m", "ensurepip", "--upgrade", quiet=True) == 0:
        return 0
    for pip in pips():
        # pip ≥ 22.3 installs into another interpreter; an older one can at least fill a folder.
        if step(*pip, "--python", PYTHON, "install", "--quiet", "pip", quiet=True) == 0:
            return 0
        if step(*pip, "install", "--quiet", "--target", site_packages(), "pip", quiet=True) == 0:
            return 0
    if code := install_debian_package():
        return code
    return step(PYTHON, "-m", "ensurepip", "--upgrade", quiet=True)


def pips() -> list[list[str]]:
    """Every pip in reach, as the words that start it: this interpreter's own first."""
    found = [[sys.executable, "-m", "pip"]] if can_import("pip") else []
    for name in ("pip3", "pip"):
        path = shutil.which(name)
        if path and works(path, "--version", code=False):
            found.append([path])
    return found


def install_debian_package() -> int:
    """The last way: as root, the distribution's own package; else the line to type, and exit code 2."""
    packages = ["python3-venv", f"python{sys.version_info[0]}.{sys.version_info[1]}-venv"]
    line = f"apt-get install -y {packages[0]}"
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        say(f"this Python has no pip and no way to one. Type this (Debian, Ubuntu), then try again:\n\n    sudo {line}")
        return NO_PIP_EXIT
    say(f"this Python has no pip: {line}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for package in packages:
        if step("apt-get", "install", "-y", package, quiet=True, environment=environment) == 0:
            return 0
        step("apt-get", "update", quiet=True, environment=environment)
        if step("apt-get", "install", "-y", package, quiet=True, environment=environment) == 0:
            return 0
    say(f"that did not work. Type this and read what it says:\n\n    {line}\n")
    return NO_PIP_EXIT


def pip_install(extras: str) -> int:
    """Install this repository and its extras into `.venv`, one line for each thing that is fetched."""
    say(f"installing gradserve[{extras}] into .venv (the first time takes a minute or so)")
    began = time.monotonic()
    words = [str(PYTHON), "-m", "pip", "install", "--disable-pip-version-check", "-e", f"{ROOT}[{extras}]"]
    lines: list[str] = []
    cuda = False
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as pip:
        assert pip.stdout is not None
        for line in pip.stdout:
            lines.append(line)
            if line.startswith("Collecting "):
                say(f"  {line.split(' (from')[0].strip()}")
                if line.startswith("Collecting nvidia-") and not cuda:
                    cuda = True
                    say(CUDA_COMES)
            elif line.startswith("Installing collected packages"):
                say(f"  unpacking {line.count(',') + 1} packages")
    if pip.returncode:
        print("".join(lines[-30:]), file=sys.stderr)
        say(f"pip could not install gradserve[{extras}]: its last lines are above")
        return pip.returncode
    # pip compiles what it installs, not a folder that it only points to. Where Python may not write bytecode by itself
    # (PYTHONDONTWRITEBYTECODE), each of the processes that the tests start would compile all of it again.
    step(PYTHON, "-m", "compileall", "-q", *(ROOT / part for part in ("client", "service", "tests")), quiet=True)
    say(f"installed in {time.monotonic() - began:.0f} s")
    return 0


# Small pieces


def run(*words: str | Path) -> int:
    """Become this program: signals and the exit code are its own."""
    command = [str(word) for word in words]
    sys.stdout.flush()
    if os.name == "nt":
        return subprocess.run(command, check=False).returncode
    os.execv(command[0], command)


def step(*words: str | Path, quiet: bool = False, environment: dict[str, str] | None = None) -> int:
    """Run one program to its end; answers its exit code. A quiet one's output is dropped."""
    command = [str(word) for word in words]
    if not quiet:
        shown = [str(Path(word).name) if word in (str(PYTHON), sys.executable) else word for word in command]
        say("$ " + " ".join(shown))
    output = subprocess.DEVNULL if quiet else None
    return subprocess.run(command, stdout=output, stderr=output, env=environment, check=False).returncode


def works(program: str | Path, text: str, *, code: bool = True) -> bool:
    """Does the program start, and end well? `text` is Python code for it, or with code=False an option."""
    words = [str(program), "-c", text] if code else [str(program), text]
    try:
        return subprocess.run(words, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def can_import(*modules: str) -> bool:
    """Has this interpreter these modules? Asked in a child: Debian's ensurepip exists and refuses."""
    return works(sys.executable, "import " + ", ".join(modules))


def site_packages() -> str:
    """Where `.venv` keeps its packages."""
    asked = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
    return subprocess.run([PYTHON, "-c", asked], capture_output=True, text=True, check=True).stdout.strip()


def run_with_newer_python(arguments: list[str]) -> int:
    """This Python is too old: hand over to a newer one on the PATH, or say what to do."""
    for minor in range(19, OLDEST[1] - 1, -1):
        newer = shutil.which(f"python3.{minor}")
        if newer and works(newer, "import ssl"):
            return run(newer, __file__, *arguments)
    say(f"expected Python 3.11 or newer, came {sys.version.split()[0]}: install one, then run this with it")
    return NO_PIP_EXIT


def say(text: str) -> None:
    """One line of progress, on stderr: a command's own output stays clean for scripts (`demo --json`)."""
    print(f"dev: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
