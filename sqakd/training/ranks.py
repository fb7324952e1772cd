"""Several processes that train one network: what they decide together before a training.

A decision that reads files must be the same in all processes, and another job may write these files at any time. So the
first process decides. Lightning connects the processes when a training begins, and they can exchange decisions from
then on. A launcher such as torchrun or srun starts all processes at once, so `join` connects them earlier. Lightning's
own launcher starts the others in the first training, and all decisions before it are those of the first process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, TypeVar, cast

from lightning_fabric.plugins.environments.lsf import LSFEnvironment
from lightning_fabric.plugins.environments.mpi import MPIEnvironment
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from pytorch_lightning.strategies import ParallelStrategy
from torch import distributed

from sqakd.errors import SqakdError
from sqakd.runs.folder import RunFolder
from sqakd.training.trainer import construct

T = TypeVar("T")

# The launchers that start all processes at once, as Lightning knows them.
LAUNCHERS = (TorchElasticEnvironment, SLURMEnvironment, LSFEnvironment, MPIEnvironment)


def join(trainer_config: Mapping[str, Any]) -> None:
    """Connect the processes of a training if a launcher other than Lightning's has started all of them.

    Args:
        trainer_config: the `trainer` group.

    Raises:
        SqakdError: if the machine has fewer devices, or if Lightning refuses an argument.
    """
    if not any(launcher.detect() for launcher in LAUNCHERS):
        return  # without a trainer, so that a finished run is found on machines without the devices that trained it
    strategy = construct(trainer_config).strategy
    if isinstance(strategy, ParallelStrategy) and isinstance(strategy.cluster_environment, LAUNCHERS):
        strategy.setup_environment()


def decided_by_first(decide: Callable[[], T]) -> T:
    """Call a function in the first process and return its result in all; each decides alone until they are connected.

    Args:
        decide: called in the first process only; its result is copied to the others.

    Raises:
        SqakdError: in all processes, if the function raises it.
        OSError: likewise.
    """
    if not (distributed.is_available() and distributed.is_initialized()):
        return decide()
    decision: list[Any] = [None, None]
    if distributed.get_rank() == 0:
        try:
            decision[0] = decide()
        except (SqakdError, OSError) as error:  # others would wait for the decision until the connection is closed
            decision[1] = error
    distributed.broadcast_object_list(decision)
    found, refusal = decision
    if refusal is not None:
        raise refusal
    return cast(T, found)


def done_by_first(act: Callable[[], object], *, first: bool) -> None:
    """Call a function in the first process alone, and raise its errors in all that are connected.

    Args:
        act: what the first process does.
        first: whether this is the first process.

    Raises:
        SqakdError: in all processes, if the function raises it.
        OSError: likewise.
    """

    def decide() -> None:
        if first:  # a process that is not connected decides alone
            act()

    decided_by_first(decide)


@contextmanager
def held(folder: RunFolder, *, first: bool) -> Iterator[None]:
    """Hold the folder of a run in the first process; connected processes wait until it is held.

    While the first process waits for another job, it sends the others a message regularly. A message between processes
    must arrive within half an hour, and the training of another job may take many hours.

    Args:
        folder: of the run.
        first: whether this is the first process.

    Raises:
        RunError: in all processes, if the folder cannot be written.
    """
    if first:
        waiting = partial(decided_by_first, lambda: True)
        with ExitStack() as stack:
            decided_by_first(partial(stack.enter_context, folder.locked(waiting=waiting)))
            yield
        return
    while decided_by_first(lambda: False):
        pass
    yield
