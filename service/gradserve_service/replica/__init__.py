"""Floor 4: runs in memory. Tasks, threads, time and recovery; no HTTP."""

from ..core.optimizers.catalogue import optimizer_catalogue
from ..core.repeats import Made
from .averages import AVERAGE_NAMES, RAW
from .published import Published, PushAnswer
from .replica import Replica, check_weights
from .replicas import Replicas

__all__ = [
    "AVERAGE_NAMES", "RAW", "Made", "Published", "PushAnswer", "Replica", "Replicas", "check_weights",
    "optimizer_catalogue",
]  # fmt: skip
