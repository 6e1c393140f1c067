"""Clipping, for the golden cases."""

NORM = {"name": "global_norm", "max_norm": 2.0}
VALUE = {"name": "value", "value": 1.5}
