"""Does this machine compute as every other? A few updates with a known end, of each optimizer; denormals are kept.

Servers replay the same journal and must get the same bits. Two things are known to break that: a NumPy that was built
for speed at any price, and a library built with -ffast-math, which flips the processor into flushing denormals to zero
for the whole thread. Both are found here in a few milliseconds, before they are found in a replay.
"""

from __future__ import annotations

import numpy as np
from xxhash import xxh3_64_hexdigest

from gradserve.wire import Layout

from .gradient import Gradient
from .groups import GroupTerms
from .optimizers import RULES
from .slots import new_slots
from .update import apply_update

__all__ = ["GOLDEN", "complaints", "flushes_denormals", "golden_digest"]

PARAMETERS = 67  # no multiple of a vector register: its tail loop counts too
TENSORS = Layout.of({"a": [7], "b": [5, 6], "c": [2, 3, 5]})
UPDATES = 5
LR = 0.01

# xxh3-64 of weights and slots after UPDATES updates with the default hyperparameters, computed on x86-64.
GOLDEN = {
    "sgd": "5db74b33aca03a5b",
    "adagrad": "f17361b3fd60c440",
    "rmsprop": "8b8d31999dafcd51",
    "adam": "df89751a7fb7115a",
    "adamw": "59735b76e3729503",
    "adamax": "165e658f61663650",
    "nadam": "7140fa12be5355ae",
    "lamb": "c1275519a0cb04d0",
    "lars": "267f616e62ee2908",
    "novograd": "51297fe529f3d38b",
    "fromage": "34326b335ff80ee5",
    "polyak_sgd": "5a1e07c8b1ce2697",
    "sm3": "f7917f957eb0dc09",
    "adafactor": "06eaf3cce8b6f021",
    "adadelta": "93c5781062907547",
    "radam": "8c1e881689607542",
    "adabelief": "630498cd1d00db08",
    "yogi": "0e4c26cc0c3ed673",
    "acprop": "72a61a2c381d2b8c",
    "adopt": "559c4799a6bd157e",
    "adan": "ae872925543ea8eb",
    "ademamix": "d2486d53abb2807c",
    "simplified_ademamix": "a6923dbd3a6f03ae",
    "optimistic_gradient_descent": "baa5e658270a5578",
    "optimistic_adam": "aa275de712d11c8e",
    "sign_sgd": "7ab1f65d921a9ad3",
    "signum": "0db3372f831a3332",
    "lion": "9731cf34f3c80194",
    "rprop": "7ab1773f1a0d7e99",
    "ftrl": "6c1844a9ae61f2f8",
    "madgrad": "33ad7ff879095b26",
    "cocob": "1c79ae4057c69bc0",
    "asgd": "4f025495434dabdf",
    "schedule_free_sgd": "003f1fe407d22923",
    "schedule_free_adamw": "090b57d07f9fb282",
    "schedule_free_radam": "d5b4434fd9f3183c",
    "momo": "035290de87e915b9",
    "momo_adam": "d2b4d7f9d23ebb0f",
    "dog": "21bf09843bfbe8f2",
    "dowg": "8e3c7ed20c225bd4",
    "dadapt_sgd": "ef8b4656760f8ad8",
    "dadapt_adam": "dd534e3604da3533",
    "prodigy": "6feb7a1b0e98485a",
    "noisy_sgd": "5db74b33aca03a5b",
    "sparse_adam": "15960ec7f9a83225",
    "rowwise_adagrad": "3b2a4d21f76c25d4",
    "rowwise_adam": "aeddfb3c7017f6cd",
}


def complaints() -> list[str]:
    """What differs here, one sentence each; empty on a machine whose results can be trusted."""
    wrong = [name for name, rule in RULES.items() if rule.every_machine and golden_digest(name) != GOLDEN.get(name)]
    found = []
    if wrong:
        found.append(
            f"updates of {', '.join(wrong)} end in other bits than they should (NumPy {np.__version__}): "
            "install the NumPy wheel for this processor instead of a build of your own"
        )
    if flushes_denormals():
        found.append(
            "numbers below 1.2e-38 are flushed to zero: a library in this process was built with -ffast-math; "
            "find it by taking imports away, and replace it"
        )
    return found


def golden_digest(name: str) -> str:
    """The digest of an optimizer's golden updates on this machine."""
    rule = RULES[name].model_validate({"name": name, "lr": LR})
    # Quotients of small integers: the same on every machine, without a generator of chance.
    places = np.arange(PARAMETERS, dtype=np.float32)
    weights = (places - 33) / np.float32(7)
    slots = new_slots(rule.slots, TENSORS, weights)
    memory = dict(rule.memory)
    for step in range(1, UPDATES + 1):
        vector = np.remainder(places * 37 + step * 11, np.float32(29)) / np.float32(13) - 1
        vector.flags.writeable = False
        next_weights = np.empty_like(weights)
        apply_update(
            rule,
            (),
            weights=weights,
            next_weights=next_weights,
            slots=slots,
            memory=memory,
            gradient=Gradient.whole(vector),
            terms=[GroupTerms(LR, rule.weight_decay)],
            layout=TENSORS,
            momentum=None,
            step=step,
            loss=1.0 / step,
        )
        weights = next_weights
    return xxh3_64_hexdigest(b"".join(array.tobytes() for array in (weights, *slots.values())))


def flushes_denormals() -> bool:
    """Does this thread round the smallest numbers to zero?"""
    return not np.multiply(np.full(16, 1e-30, np.float32), np.float32(1e-10)).all()
