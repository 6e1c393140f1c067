"""`RemoteOptimizer`: torch's optimizer interface, with the update done by a run."""

from __future__ import annotations

import os
import warnings
import weakref
from collections import defaultdict
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..client import Client, connect
from ..errors import GradserveWarning, LrOwnedByServer, Misuse, ValidationError
from ..launcher import worker_rank
from ..run import Run
from ..session import OnStale
from ..specs import AdamW, Spec
from ..weights import PushResult, Weights
from ..worker import Submission, Worker
from .forms import form_of, group_names, run_groups
from .state import BESIDE, checkpoint_of, read_run, rest_of, restore_run, torch_state
from .tensors import (
    changed_here,
    copy_into,
    fixed,
    gradients_of,
    named,
    rounds_to,
    to_array,
    without_ties,
    writes,
)

__all__ = ["RemoteOptimizer"]


class RemoteOptimizer(torch.optim.Optimizer):
    """A `torch.optim.Optimizer` whose `step` pushes the gradients to a run and takes its new weights.

        optimizer = RemoteOptimizer(model.named_parameters(), run="gpt-mini", optimizer=gs.AdamW(lr=3e-4))

    params     as every optimizer of torch takes them; with names, which the run then knows the tensors by. Groups may
               differ in lr and weight_decay. Tied weights count once, under their first name
    run        the run's name: it is found or made, and the first worker's weights win; all others start from them
    optimizer  the run's: a spec, a name or a dict. torch's part in it is over: its state is on the server
    url, token as in `gs.connect`; or `client`, one that is connected already and stays the caller's
    worker     this process's name in the run, by default `worker-<rank>`, without a rank `<host>-<process id>`
    schedule   the run's. The server owns it: `param_groups` show the rate of the last update, and a change of theirs,
               a torch scheduler's too, raises `LrOwnedByServer`. With `"client"` each push brings the groups' rates,
               and torch's schedulers work as ever; a push has no momentum, so that OneCycleLR and CyclicLR need
               cycle_momentum=False (the run's own `OneCycle` and `Cyclic` do cycle it)
    overlap    send the gradients while the next ones are computed: the weights are then one update old when the
               gradient is taken (its staleness says so)
    start      False: join only at `start()`, with parameter groups added until then
    settings   further fields of the run: clip, aggregation, staleness, non_finite

    Gradients travel as float32 and weights come back in the parameters' dtype: with bfloat16 parameters the server
    keeps the float32 ones. Parameters without a gradient, frozen ones among them, are left out of a push, and keep
    weights and slots; the number of updates, which Adam's bias correction reads, is the run's and not theirs. Buffers
    (BatchNorm's running means) are no parameters and stay each worker's own.

    `torch.amp.GradScaler` works: it divides the gradients by its scale before `step`, and where it skips a step nothing
    is sent. Register hooks, attach schedulers, give a closure as ever.

    The weights are the run's: what is written into the parameters after it was joined (a model loaded later, a clamp, a
    pruning mask, an embedding's max_norm) is gone with the next step, and the first time a `GradserveWarning` says so.
    Load the model first, or both with `load_state_dict`, the model before the optimizer.

    Leave with `close()`, as a context manager, or by the end of the program.
    """

    _worker: Worker | None = None

    def __init__(
        self,
        params: Any,
        run: str,
        optimizer: Spec | Mapping[str, Any] | str | None = None,
        *,
        url: str | None = None,
        token: str | None = None,
        client: Client | None = None,
        worker: str | None = None,
        schedule: Spec | Mapping[str, Any] | str | None = None,
        overlap: bool = False,
        on_stale: OnStale = "refresh",
        start: bool = True,
        **settings: Any,
    ) -> None:
        self.run_name = run
        self.loss: float | Tensor | None = None  # of the next step, for programs that call step() without an argument
        self.samples: float | None = None  # that its gradient is the mean of; stays until it is changed
        self._optimizer = AdamW() if optimizer is None else optimizer
        self._settings = {"schedule": schedule, **settings}
        self._where = (url, token, client)
        self._worker_name, self._on_stale, self._overlap = worker, on_stale, overlap
        self._parameters: dict[str, Tensor] = {}
        self._weights: Weights | None = None
        self._written: dict[str, int] | None = {}  # of each parameter when it took them; None: a change was told of
        self._pending: Submission | None = None
        self._client_rates = False
        self._scales: list[float] = []  # of each group: its rate over the optimizer's
        self._shown: list[Any] = []  # the rate that each group was last seen with
        self._as_joined: list[dict[str, Any]] = []  # what may not change, by group
        self._run: Run | None = None
        self._form = form_of(self._optimizer)
        super().__init__(params, dict(self._form.defaults))
        if start:
            self.start()

    # -- life

    def start(self) -> Self:
        """Find or make the run, join it, and take its weights. Done by the constructor unless `start=False`."""
        if self._worker is not None:
            return self
        self._parameters = named(self.param_groups)
        called = iter(self._parameters)
        names = [[next(called) for _ in group["params"]] for group in self.param_groups]
        self._as_joined = fixed(self.param_groups)
        self._client_rates = _is_client(self._settings["schedule"])
        groups = run_groups(self.param_groups, names, self._form.defaults, client_rates=self._client_rates)
        url, token, given = self._where
        client = given or connect(url, token)
        try:
            first = {name: to_array(parameter) for name, parameter in self._parameters.items()}
            fields = {"groups": groups, **self._settings} if groups else self._settings
            self._run = client.run(self.run_name, init=first, optimizer=self._optimizer, **fields)
            worker = self._run.worker(self._worker_name, on_stale=self._on_stale).start()
        except BaseException:
            if given is None:
                client.close()
            raise
        self._worker = worker
        self._leave = weakref.finalize(self, _leave, worker, None if given else client, os.getpid())
        self._adopt(worker.pull())
        self._show(None)
        return self

    def close(self) -> None:
        """Send what is on its way, take the weights it brings, and leave the run."""
        if self._worker is None:
            return
        try:
            if self._leave.alive:
                self._collect()
        finally:
            self._leave()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None and self._worker is not None:
            self._pending = None  # nobody will use the weights that it brings
            self._worker.__exit__(kind, error, traceback)
        self.close()

    # -- torch's verbs

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As in torch, until the run is joined: its tensors are fixed then.

        For layers that are thawed later give all parameters at once, the frozen ones with `requires_grad=False`: they
        are pushed from when they have gradients.
        """
        if self._worker is not None:
            raise ValidationError(
                f"expected parameter groups before run {self.run_name!r} is joined: its tensors are fixed. Give all "
                "parameters at once (frozen ones with requires_grad=False), or build with start=False, add the groups, "
                "then start()"
            )
        if isinstance(param_group, dict) and "params" in param_group:
            param_group = {**param_group, "params": without_ties(param_group["params"])}
        super().add_param_group(param_group)

    def step(
        self,
        closure: Callable[[], Any] | None = None,
        *,
        loss: float | Tensor | None = None,
        samples: float | None = None,
        loss_scale: float | None = None,
    ) -> Any:
        """Push the gradients, and copy the new weights into the parameters.

        closure  computes the loss and the gradients anew, as in torch; answers its loss
        loss     for the run's history: an argument, the closure's result, or the attribute `loss`
        samples  that the gradient is the mean of, a weight in a batch; or the attribute `samples`
        loss_scale  that the loss was multiplied with before `backward`: the server divides; `last_push.finite` says
                    whether all were numbers, in a run whose `non_finite` is `skip`

        Where the gradient is refused as stale, or the server lost its history, it is not applied and the parameters
        are the run's present weights; `last_push.outcome` says so.
        """
        worker = self._joined()
        result = None
        if closure is not None:
            with torch.enable_grad():
                result = closure()
        said, self.loss = next((given for given in (loss, result, self.loss) if given is not None), None), None
        fields: dict[str, Any] = {"loss": said.item() if isinstance(said, Tensor) else said}
        if (weight := samples if samples is not None else self.samples) is not None:
            fields["samples"] = float(weight)
        if loss_scale is not None:
            fields["loss_scale"] = loss_scale
        self._require_as_joined()
        fields["lr"] = self._rates()
        gradients = gradients_of(self._parameters)
        if not gradients:
            return result
        self._tell_of_changes()
        if self._overlap:
            base = self._weights
            self._collect()
            self._pending = worker.submit(gradients, base=base, **fields)
        else:
            self._adopt(worker.step(gradients, base=self._weights, **fields))
            self._show(self.last_push)
        return result

    def pull(self) -> None:
        """Take the run's present weights, without a gradient: before an evaluation, or after a pause."""
        worker = self._joined()
        self._collect()
        weights = worker.pull()
        self._weights = None  # also where the run's are still the same: the parameters may not be
        self._adopt(weights)

    def state_dict(self) -> dict[str, Any]:
        """The run's optimizer state in torch's form: `torch.optim.AdamW(…).load_state_dict` takes it.

        It is fetched from the server, of one moment (by a checkpoint that is deleted again); with several workers the
        model in this process may be some updates behind it (`pull()` first). An optimizer that torch has not gives its
        slots under the run's own names. What torch's form has no place for is in the member `gradserve`: keep it, and
        `load_state_dict` goes on as this run would have.
        """
        self._joined()
        self._collect()
        state, rest = torch_state(read_run(self.run), self._parameters, self._form)
        # Before the program's own hooks: they see the dict that is answered.
        hook = self.register_state_dict_post_hook(lambda _, found: found.update({BESIDE: rest}), prepend=True)
        self.state.update(state)
        try:
            return super().state_dict()
        finally:
            self.state.clear()
            hook.remove()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Set the run to this process's weights and this state, of the same optimizer in torch or of `state_dict`.

        Load the model first: its weights and the state become one checkpoint, which the run restores; the number of
        updates comes along, for its schedule too. Rank 0 brings them, the other ranks only pull: their gradients from
        before are stale. Hyperparameters stay the run's; with `schedule="client"` the groups take the saved rates.

        A state dict of this class brings everything that the run keeps. One of torch's own brings the slots and the
        number of updates; it is refused where the run's optimizer keeps numbers besides (`prodigy`, `nadam`).

        Parameters of another dtype than float32 that are still the run's weights, rounded, stay the run's float32
        ones; torch itself rounds the state to the parameters' dtype.
        """
        worker = self._joined()
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()  # it counts before; the weights it brings would replace those just loaded: left there
        own, came = self.param_groups, dict[str, Any]()
        # Behind the program's own hooks, which may give another dict.
        hook = self.register_load_state_dict_pre_hook(lambda _, given: came.update(given))
        try:
            super().load_state_dict(state_dict)  # torch's checks and hooks
        finally:
            hook.remove()
        state, saved = self.state, self.param_groups
        self.state, self.param_groups = defaultdict(dict), own
        if self._client_rates:
            for group, other in zip(own, saved, strict=True):
                group.update({key: other[key] for key in ("lr", "initial_lr") if key in other})
        if not worker_rank():
            rest = rest_of(came, self._parameters)
            slots, metadata = checkpoint_of(self.run, self._parameters, state, rest, self._form)
            restore_run(self.run, self._as_float32() | slots, metadata)
        weights = worker.pull()
        self._weights = None  # the parameters are not those that were held, also where the run's are still the same
        self._adopt(weights)

    # -- what it knows

    @property
    def run(self) -> Run:
        """The run: settings, history, checkpoints."""
        self._joined()
        assert self._run is not None
        return self._run

    @property
    def last_push(self) -> PushResult | None:
        """What became of the last gradient: outcome, version, lr, staleness. With overlap, of the one before."""
        return self._joined().last_push

    # -- inside

    def _joined(self) -> Worker:
        if self._worker is None or not self._leave.alive:
            state = "is not started: call start()" if self._worker is None else "is closed: build another"
            raise ValidationError(f"this RemoteOptimizer of run {self.run_name!r} {state}")
        return self._worker

    def _require_as_joined(self) -> None:
        """Hyperparameters and parameters are the run's since it was joined: a change here would do nothing."""
        for before, now, name in zip(
            self._as_joined, fixed(self.param_groups), group_names(self.param_groups), strict=True
        ):
            changed = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
            if "base_momentum" in changed:  # OneCycleLR and CyclicLR put it there
                raise ValidationError(
                    f"parameter group {name!r}: expected a scheduler of rates, came one that cycles the momentum too: "
                    "a push brings no momentum. Give it cycle_momentum=False (and RemoteOptimizer schedule='client'), "
                    "or drop it and give the run schedule=gs.OneCycle(…) or gs.Cyclic(…), which cycle the momentum"
                )
            if changed:
                raise ValidationError(
                    f"parameter group {name!r}: expected {', '.join(changed)} as when run {self.run_name!r} was "
                    "joined, came another: optimizer.run.configure(…) changes hyperparameters for all workers; for "
                    "other parameters build another RemoteOptimizer"
                )

    def __getstate__(self) -> dict[str, Any]:
        """Raises `Misuse`: a worker's connection and sequence belong to one object of one process."""
        raise Misuse(
            f"a RemoteOptimizer (of run {self.run_name!r}) cannot be copied or pickled: build one where it is needed; "
            "state_dict() has the optimizer's state"
        )

    def _adopt(self, weights: Weights) -> None:
        if weights is not self._weights:
            copy_into(self._parameters, weights)
            self._weights = weights
            if self._written is not None:
                self._written = writes(self._parameters)

    def _tell_of_changes(self) -> None:
        """Warn, once, of weights that were changed here and are about to be replaced by the run's."""
        if self._written is None or self._weights is None:
            return
        if changed := changed_here(self._parameters, self._written, self._weights):
            self._written = None
            more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
            warnings.warn(
                f"parameter {changed[0]!r}{more} changed here after run {self.run_name!r} gave its weights: this step "
                "takes the run's again, and the change is lost. Load the model before RemoteOptimizer is built, or "
                "give both their load_state_dict, the model first; clamps, masks and max_norm do not reach a run",
                GradserveWarning,
                stacklevel=4,  # torch wraps `step`
            )

    def _collect(self) -> None:
        """Wait for the submitted gradient, and take the weights that it brought."""
        pending, self._pending = self._pending, None
        if pending is not None:
            self._adopt(pending.result())
            self._show(pending.push)

    def _as_float32(self) -> dict[str, NDArray[np.float32]]:
        """The parameters as the run should have them: where they are its weights, only rounded, those."""
        assert self._weights is not None
        held = self._weights
        return {
            name: np.array(held[name]) if rounds_to(held[name], parameter) else to_array(parameter)
            for name, parameter in self._parameters.items()
        }

    def _rates(self) -> float | dict[str, float] | None:
        """The rates of this push where the client owns them; else a look that nobody here tries to."""
        if self._client_rates:
            rates = [float(group["lr"]) for group in self.param_groups]
            return rates[0] if len(set(rates)) == 1 else dict(zip(group_names(self.param_groups), rates, strict=True))
        for group, shown, name in zip(self.param_groups, self._shown, group_names(self.param_groups), strict=True):
            if group["lr"] != shown or "initial_lr" in group:
                came = "a torch scheduler" if "initial_lr" in group else f"{float(group['lr']):g}"
                raise LrOwnedByServer(
                    f"parameter group {name!r}: expected lr {float(shown):g}, as the server's schedule has it, came "
                    f"{came}. Give RemoteOptimizer schedule='client' and keep "
                    "the scheduler, or drop it and give the run a schedule, gs.WarmupCosine(…) for instance; "
                    "optimizer.run.configure(lr=…) changes the rate of all workers"
                )
        return None

    def _show(self, push: PushResult | None) -> None:
        """The server's rate of the last update, where torch's programs look for it."""
        if self._client_rates:
            return
        if not self._scales:
            base = float(self._form.defaults["lr"])
            self._scales = [float(group["lr"]) / base if base else 1.0 for group in self.param_groups]
        if push is not None and push.lr is not None:
            for group, scale in zip(self.param_groups, self._scales, strict=True):
                group["lr"] = push.lr * scale
        self._shown = [group["lr"] for group in self.param_groups]


def _is_client(schedule: Any) -> bool:
    name = schedule.get("name") if isinstance(schedule, Mapping) else getattr(schedule, "name", schedule)
    return name == "client"


def _leave(worker: Worker, client: Client | None, owner: int) -> None:
    """Leave the run; not from a fork of the process (a DataLoader's worker), whose death is no departure."""
    if os.getpid() != owner:
        return
    try:
        worker.leave()
    finally:
        if client is not None:
            client.close()
