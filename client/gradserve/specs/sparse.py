"""Rules made for gradients of some rows of a table: SparseAdam, row-wise Adagrad and Adam. Legend: `optimizers.py`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final, Literal

from .optimizer_fields import BETA_ALIASES, Beta1, Beta2, Decay, DecayMode, Eps, Lr, Maximize, OptimizerFields


class SparseAdam(OptimizerFields):
    """Adam on the rows that came; the others keep weights and moments. Matches torch.optim.SparseAdam."""

    summary: ClassVar[str] = "Adam for tables: rows without a gradient stay as they are, moments and all."
    formula: ClassVar[str] = (
        "on the rows that came: m <- beta1 m + (1 - beta1) g; v <- beta2 v + (1 - beta2) g²; "
        "w -= lr sqrt(1 - beta2^t) / (1 - beta1^t) m / (sqrt(v) + eps); t counts the run's updates, not the row's."
    )
    source: ClassVar[str] = "torch.optim.SparseAdam; Kingma & Ba 2015 (arXiv:1412.6980)."
    use_when: ClassVar[str] = "Embedding tables of which a batch touches few rows."
    field_aliases: ClassVar[Mapping[str, str]] = BETA_ALIASES
    other_names: ClassVar[Mapping[str, Mapping[str, object]]] = {"lazyadam": {}}

    name: Literal["sparse_adam"] = "sparse_adam"
    lr: Lr = 1e-3
    beta1: Beta1 = 0.9
    beta2: Beta2 = 0.999
    eps: Eps = 1e-8
    weight_decay: Decay = 0.0
    weight_decay_mode: DecayMode = "l2"
    maximize: Maximize = False


class RowwiseAdagrad(OptimizerFields):
    """Adagrad with one number a row instead of one a weight. Matches FBGEMM's exact_row_wise_adagrad."""

    summary: ClassVar[str] = "Adagrad with one accumulator a row: a table's state is next to nothing."
    formula: ClassVar[str] = "h_r <- h_r + the mean of the row's g²; w_r -= lr / (sqrt(h_r) + eps) g_r."
    source: ClassVar[str] = "FBGEMM exact_row_wise_adagrad; Mudigere et al. 2021 (arXiv:2104.05158), section 4.1.3."
    use_when: ClassVar[str] = "Large embedding tables, where Adagrad's accumulators would double the memory."
    other_names: ClassVar[Mapping[str, Mapping[str, object]]] = {"exactrowwiseadagrad": {}}

    name: Literal["rowwise_adagrad"] = "rowwise_adagrad"
    lr: Lr = 1e-2
    eps: Eps = 1e-8
    weight_decay: Decay = 0.0
    weight_decay_mode: DecayMode = "l2"
    maximize: Maximize = False


class RowwiseAdam(OptimizerFields):
    """Adam whose second moment is one number a row. Matches FBGEMM's partial_row_wise_adam."""

    summary: ClassVar[str] = "Adam with one second moment a row: half of Adam's memory."
    formula: ClassVar[str] = (
        "m <- beta1 m + (1 - beta1) g; v_r <- beta2 v_r + (1 - beta2) the mean of the row's g²; "
        "w_r -= lr (m_r / (1 - beta1^t)) / (sqrt(v_r / (1 - beta2^t)) + eps)."
    )
    source: ClassVar[str] = "FBGEMM partial_row_wise_adam; Kingma & Ba 2015 (arXiv:1412.6980)."
    use_when: ClassVar[str] = "Large embedding tables, where Adam's moments would triple the memory."
    field_aliases: ClassVar[Mapping[str, str]] = BETA_ALIASES
    other_names: ClassVar[Mapping[str, Mapping[str, object]]] = {"partialrowwiseadam": {}}

    name: Literal["rowwise_adam"] = "rowwise_adam"
    lr: Lr = 1e-3
    beta1: Beta1 = 0.9
    beta2: Beta2 = 0.999
    eps: Eps = 1e-8
    weight_decay: Decay = 0.0
    weight_decay_mode: DecayMode = "l2"
    maximize: Maximize = False


FAMILY: Final[tuple[type[OptimizerFields], ...]] = (SparseAdam, RowwiseAdagrad, RowwiseAdam)
