"""Child programs end, whatever they do about it."""

from __future__ import annotations

import os
import signal
import sys

import pytest

from gradserve_service.demo import programs
from gradserve_service.demo.programs import Programs


@pytest.fixture
def modules(tmp_path, monkeypatch):
    """A folder of modules that children can run."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)

    def write(name, text):
        (tmp_path / f"{name}.py").write_text(text)
        return name

    return write


OBEDIENT = "import sys; print('up', flush=True); sys.stdin.read()"
DEAF = """
import os
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("up", flush=True)
while True:
    signal.pause()
"""
TALKS_AND_FAILS = "print('on stdout')\nraise SystemExit('the reason')"


def test_leaving_the_block_ends_every_program(modules, tmp_path):
    with Programs(tmp_path / "logs") as all_programs:
        started = [all_programs.start(f"p{i}", modules("obedient", OBEDIENT)) for i in range(2)]
        for program in started:
            assert program.stdout.readline() == b"up\n"
    assert [program.popen.returncode for program in started] == [-signal.SIGTERM] * 2


def test_a_program_that_ignores_the_request_is_ended_by_force(modules, tmp_path, monkeypatch):
    monkeypatch.setattr(programs, "END_SECONDS_MAX", 0.05)
    with Programs(tmp_path / "logs") as all_programs:
        program = all_programs.start("deaf", modules("deaf", DEAF))
        program.stdout.readline()
    assert program.popen.returncode == -signal.SIGKILL


def test_an_exception_in_the_block_ends_them_too(modules, tmp_path):
    def interrupted():
        with Programs(tmp_path / "logs") as all_programs:
            started.append(all_programs.start("p", modules("obedient", OBEDIENT)))
            raise KeyboardInterrupt

    started = []
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    [program] = started
    assert program.popen.returncode is not None


def test_an_interrupt_while_a_program_starts_loses_no_child(modules, tmp_path, monkeypatch):
    """It waits until the child is written down, and then ends the block."""
    start = programs.subprocess.Popen

    def interrupted_start(*words, **options):
        popen = start(*words, **options)
        signal.raise_signal(signal.SIGINT)
        return popen

    def interrupted():
        with Programs(tmp_path / "logs") as all_programs:
            monkeypatch.setattr(programs.subprocess, "Popen", interrupted_start)
            started.append(all_programs)
            all_programs.start("p", modules("obedient", OBEDIENT))

    started = []
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    [program] = started[0].started
    assert program.popen.returncode == -signal.SIGTERM


def test_an_interrupt_while_the_programs_end_waits(modules, tmp_path, monkeypatch):
    """An impatient second Ctrl-C."""
    end = Programs.end
    monkeypatch.setattr(Programs, "end", lambda self, some: signal.raise_signal(signal.SIGINT) or end(self, some))
    with Programs(tmp_path / "logs") as all_programs:
        program = all_programs.start("p", modules("obedient", OBEDIENT))
    assert program.popen.returncode == -signal.SIGTERM


def test_the_signal_dispositions_are_as_before(tmp_path):
    before = signal.getsignal(signal.SIGINT)
    with Programs(tmp_path / "logs"):
        pass
    assert signal.getsignal(signal.SIGINT) is before


def test_the_last_words_are_the_end_of_the_log(modules, tmp_path):
    with Programs(tmp_path / "logs") as all_programs:
        program = all_programs.start(
            "p", modules("fails", "for i in range(40): print(i)\nraise SystemExit('the reason')")
        )
        program.stdout.read()
        program.popen.wait()
        assert program.last_words() == "    the reason"
        assert program.popen.returncode == 1


def test_a_child_has_one_arithmetic_thread_and_no_setting_of_another_server(modules, tmp_path, monkeypatch):
    monkeypatch.setenv("GRADSERVE_STORE", "redis://elsewhere")
    tell = "import os; print(os.environ['OPENBLAS_NUM_THREADS'], 'GRADSERVE_STORE' in os.environ)"
    with Programs(tmp_path / "logs") as all_programs:
        assert all_programs.start("p", modules("tell", tell)).stdout.read() == b"1 False\n"


def test_the_child_is_the_same_interpreter(modules, tmp_path):
    with Programs(tmp_path / "logs") as all_programs:
        program = all_programs.start("p", modules("who", "import sys; print(sys.executable)"))
        assert program.stdout.read().decode().strip() == sys.executable
