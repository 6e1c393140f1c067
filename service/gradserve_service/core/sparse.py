"""When gradients of some rows are taken: where they mean what the whole gradient would, or the run says otherwise.

    exact   the rule leaves alone what has no gradient, so the touched rows are all there is to do
    lazy    it does not (a moment decays, a weight goes on along its velocity): untouched rows are left alone all the
            same, which is another algorithm, so the run has to ask for it
    own     leaving them alone is the rule itself
    no      it needs the whole gradient, or something that all rows share

Weight decay reaches every row, so it makes an exact rule lazy.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from gradserve.problems import Rejection
from gradserve.specs import RunSpec, groups_of
from gradserve.wire import Layout

from .optimizers import RULES, rule_for

__all__ = ["ROW_CLIPS", "rows_refused"]

# The stages that do to rows what they would do to the whole gradient: others look at tensors, or add to zeros.
ROW_CLIPS: Final = frozenset({"global_norm", "value", "normalize", "quantile"})


def rows_refused(spec: RunSpec, layout: Layout, names: Iterable[str]) -> Rejection | None:
    """Why a run does not take rows of these tensors; None where it does."""
    names = tuple(names)
    sparse, optimizer = rule_for(spec.optimizer).sparse_as_set, spec.optimizer.name
    if sparse == "no":
        others = ", ".join(name for name, rule in RULES.items() if rule.sparse != "no")
        return _refusal(names, f"{optimizer} needs the whole gradient: send the tensor whole, or use one of {others}")
    if spec.accumulate is not None:
        return _refusal(names, 'a batch adds whole tensors: send it whole, or set "accumulate": null in the run')
    if unfit := [stage.name for stage in spec.clip if stage.name not in ROW_CLIPS]:
        return _refusal(names, f"the clip {unfit[0]} needs the whole gradient: use {', '.join(sorted(ROW_CLIPS))}")
    if sparse == "own" or spec.sparse_semantics == "lazy":
        return None
    cure = 'send it whole, or set "sparse_semantics": "lazy" in the run: untouched rows then stay as they are'
    if sparse == "lazy":
        return _refusal(names, f"{optimizer} as it is set changes rows without a gradient as well: {cure}")
    if decayed := next((name for name in names if _decay_of(spec, layout, name)), None):
        return _refusal((decayed,), f"its weight decay changes rows without a gradient as well: {cure}")
    return None


def _decay_of(spec: RunSpec, layout: Layout, name: str) -> float:
    place = groups_of(spec.groups, layout.names)[layout.names.index(name)]
    group = spec.groups[place - 1] if place else None
    if group is not None and group.frozen:
        return 0.0
    own = group.weight_decay if group is not None else None
    return spec.optimizer.weight_decay if own is None else own


def _refusal(names: tuple[str, ...], why: str) -> Rejection:
    tensor = names[0]
    return Rejection("validation-error", f"rows of tensor {tensor!r} cannot be taken: {why}", {"tensor": tensor})
