"""`checkpoint` and `restore`: every flag, on a real server."""

from __future__ import annotations

import json

import httpx
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from gradserve_service.core.optimizers import Sgd

SLOTS = [slot.name for slot in Sgd(lr=0.5, momentum=0.9).slots]
PUSH = {"gradients": {"w": [1.0, -1.0]}}


@pytest.fixture
def training(serve, tmp_path):
    """A server with run `r` at version 1, weights [0.5, 2.5]; the environment of its clients."""
    server = serve("--store", f"sqlite:///{tmp_path / 'store' / 'x.db'}")
    url = server.address["url"]
    spec = {"optimizer": {"name": "sgd", "lr": 0.5, "momentum": 0.9}, "weights": {"w": [1.0, 2.0]}}
    httpx.put(f"{url}/v1/runs/r", json=spec).raise_for_status()
    push(url, 1)
    return {"GRADSERVE_URL": url}


def push(url, sequence):
    """One update of the run."""
    httpx.put(f"{url}/v1/runs/r/workers/w/pushes/{sequence}", json=PUSH).raise_for_status()


@pytest.fixture
def said(gradserve, training):
    """Run a command that succeeds; what it prints for scripts."""

    def run(*words):
        done = gradserve(*words, "--json", **training)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def test_a_checkpoint_is_made_listed_and_deleted(said):
    """A name that is taken is answered as it is."""
    made = said("checkpoint", "r", "best")
    assert (made["name"], made["version"], made["step"]) == ("best", 1, 1)
    assert said("checkpoint", "r", "best") == made
    assert said("checkpoint", "r", "--list") == [made]
    for _ in range(2):  # what is gone is gone
        assert said("checkpoint", "r", "best", "--delete") == {"deleted": "best"}
    assert said("checkpoint", "r", "--list") == []


def test_the_list_for_people_has_a_line_for_each(gradserve, said, training):
    for name in ("one", "two"):
        said("checkpoint", "r", name)
    lines = gradserve("checkpoint", "r", "--list", **training).stdout.splitlines()
    assert [line.split()[:3] for line in lines] == [["name", "version", "step"], ["one", "1", "1"], ["two", "1", "1"]]
    assert gradserve("checkpoint", "r", "one", **training).stdout.split()[:2] == ["name", "one"]


def test_a_checkpoint_comes_out_and_in_as_a_file(said, tmp_path):
    """Weights under their own names, slots beside them; the file makes another checkpoint of the same state."""
    said("checkpoint", "r", "best")
    written = said("checkpoint", "r", "best", "--download", "best.safetensors")
    path = tmp_path / "best.safetensors"
    assert written == {"file": "best.safetensors", "bytes": path.stat().st_size}
    tensors = load_file(path)
    assert sorted(tensors) == [f"optimizer/{slot}/w" for slot in SLOTS] + ["w"]
    np.testing.assert_array_equal(tensors["w"], np.float32([0.5, 2.5]))
    again = said("checkpoint", "r", "again", "--upload", "best.safetensors")
    assert (again["name"], again["version"], again["step"]) == ("again", None, 1)


def test_a_restore_goes_back_to_a_checkpoint_or_a_version(said, training):
    """The step goes back, the version goes on."""
    said("checkpoint", "r", "best")
    push(training["GRADSERVE_URL"], 2)
    back = said("restore", "r", "--checkpoint", "best")
    assert (back["version"], back["step"]) == (3, 1)
    back = said("restore", "r", "--version", "2")
    assert (back["version"], back["step"]) == (4, 2)


def test_weights_of_another_program_become_a_run_s(said, tmp_path):
    """Uploaded and restored: weights alone are a whole state."""
    save_file({"w": np.float32([7, 8])}, tmp_path / "other.safetensors")
    said("checkpoint", "r", "other", "--upload", "other.safetensors")
    assert said("restore", "r", "--checkpoint", "other")["step"] == 0
    said("pull", "r", "-o", "now.safetensors")
    np.testing.assert_array_equal(load_file(tmp_path / "now.safetensors")["w"], np.float32([7, 8]))


USAGE = {
    "no name": ("checkpoint", "r"),
    "two flags": ("checkpoint", "r", "c", "--list", "--delete"),
    "nothing to go back to": ("restore", "r"),
    "two places": ("restore", "r", "--checkpoint", "c", "--version", "1"),
}


@pytest.mark.parametrize("words", USAGE.values(), ids=USAGE)
def test_words_that_do_not_go_together_are_usage_errors(gradserve, words):
    """Told without asking a server."""
    refused = gradserve(*words, GRADSERVE_URL="http://127.0.0.1:1")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "expected" in refused.stderr or "missing" in refused.stderr or "exclude" in refused.stderr


REFUSED = {
    "an unknown checkpoint": (("restore", "r", "--checkpoint", "none"), "no checkpoint 'none'"),
    "an unknown version": (("restore", "r", "--version", "99"), "version 99"),
    "downloading nothing": (("checkpoint", "r", "none", "--download", "x"), "no checkpoint 'none'"),
    "a file that is not there": (("checkpoint", "r", "c", "--upload", "no-file"), "no-file"),
    "another run": (("checkpoint", "nobody", "c"), "nobody"),
}


@pytest.mark.parametrize(("words", "named"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused_is_one_line(gradserve, training, tmp_path, words, named):
    """And leaves no half a file."""
    refused = gradserve(*words, **training)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith("gradserve: ")
    assert named in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert not (tmp_path / "x").exists()
