"""The safetensors library as a second reader; its NumPy front does not know bfloat16, its core does."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import safetensors

_DTYPES = {"I64": "<i8", "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}


def load(content):
    """Each tensor of a frame as the library reads it."""
    return {
        name: np.frombuffer(bytes(tensor["data"]), _DTYPES[tensor["dtype"]]).reshape(tensor["shape"])
        for name, tensor in safetensors.deserialize(bytes(content))
    }
