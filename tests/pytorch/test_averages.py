"""The averages of a run are those of `torch.optim.swa_utils`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from core.running import Averaged
from gradserve.specs import Ema, SwaAverage


@pytest.mark.parametrize("average", [Ema(decay=0.9), Ema(decay=0.0), SwaAverage()], ids=str)
def test_averages_are_those_of_torch(average: Any) -> None:
    """`AveragedModel` over a walk of 40 updates, asked after each of them."""
    walk = np.random.default_rng(3).standard_normal((41, 64)).cumsum(axis=0).astype(np.float32)
    model = torch.nn.Linear(64, 1, bias=False)
    how = {} if average.name == "swa" else {"multi_avg_fn": get_ema_multi_avg_fn(average.decay)}
    theirs, ours = AveragedModel(model, **how), Averaged(average, walk[0], np.float32)
    for weights in walk[1:]:
        with torch.no_grad():
            model.weight[0] = torch.from_numpy(weights)
        theirs.update_parameters(model)
        ours.move(weights)
        np.testing.assert_allclose(ours.vector, theirs.module.weight.detach().numpy()[0], rtol=2e-6, atol=2e-6)
