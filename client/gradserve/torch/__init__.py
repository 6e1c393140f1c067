"""PyTorch: the run's optimizer as a `torch.optim.Optimizer`.

    import gradserve as gs
    from gradserve.torch import RemoteOptimizer

    optimizer = RemoteOptimizer(model.named_parameters(), run="gpt-mini", optimizer=gs.AdamW(lr=3e-4))

The rest of a training script stays as it is. Needs `pip install 'gradserve[torch]'`.
"""

try:
    import torch  # noqa: F401  only whether it is there
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    raise ModuleNotFoundError(
        "gradserve.torch needs PyTorch 2.6 or newer: pip install 'gradserve[torch]'", name="torch"
    ) from None

from .optimizer import RemoteOptimizer

__all__ = ["RemoteOptimizer"]
