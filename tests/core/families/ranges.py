"""Ranges that the strategies of all families draw from."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

MODES = ["l2", "decoupled", "independent", "corrected", "cautious", "proximal"]
DECAY: dict[str, Any] = {
    "weight_decay": st.sampled_from([0.0, 0.01, 0.3]),
    "weight_decay_mode": st.sampled_from(MODES),
    "maximize": st.booleans(),
}
LR = st.floats(1e-4, 0.3)
SHARE = st.floats(0.05, 0.99)
