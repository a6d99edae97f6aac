"""The processes ("ranks") that train one network together: which one this is, and what they exchange.

Every rank runs the same command. `asr-train --devices N` (`asr_train.fitting.launch`), torchrun and srun start them and
say in environment variables which rank each is. Files, logs and figures come from rank 0, the first one.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment

from asr_runtime.errors import AsrError, ConfigurationError, RankError
from asr_train.fitting.launch import was_launched

__all__ = ["ALONE", "Ranks", "is_rank", "joined_ranks", "losing_ranks"]

T = TypeVar("T")

_LONGEST_WAIT = timedelta(hours=2)
"""Rank 0 lists and audits while the others wait. A rank that dies is noticed at once, by its closed connection."""


@dataclass(frozen=True)
class Ranks:
    """The processes of one training.

    Attributes:
        rank: of this process, from 0.
        size: how many there are.
        nodes: machines that they run on.
    """

    rank: int = 0
    size: int = 1
    nodes: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and logs."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """Return every `size`-th item, this rank's; all ranks together have every item once."""
        return items[self.rank :: self.size]

    def from_first(self, make: Callable[[], T]) -> T:
        """Return what `make` returns on rank 0; where it raises, rank 0 says so and all others end silently."""
        if self.size == 1:
            return make()
        answer: list[Any] = [None, None]
        if self.is_first:
            try:
                answer = [make(), None]
            except Exception as error:
                dist.broadcast_object_list([None, getattr(error, "exit_code", AsrError.exit_code)], src=0)
                raise
        dist.broadcast_object_list(answer, src=0)
        if answer[1] is not None:
            raise SystemExit(answer[1])
        result: T = answer[0]
        return result

    def gather(self, value: T) -> list[T]:
        """Return the values of all ranks, in their order, on every rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def total(self, values: torch.Tensor) -> torch.Tensor:
        """Return the sum over all ranks of a tensor; on the CPU if there are several."""
        if self.size > 1:
            values = values.to("cpu", copy=True)
            dist.all_reduce(values)
        return values


ALONE = Ranks()
"""A training in one process."""


def is_rank() -> bool:
    """Return whether torchrun, srun or `asr-train --devices` has started this process as one of several."""
    return "RANK" in os.environ or "SLURM_STEP_NUM_TASKS" in os.environ


@contextlib.contextmanager
def joined_ranks() -> Iterator[Ranks]:
    """Join the other ranks, if there are any.

    Raises:
        ConfigurationError: the environment names no usable rank, or the other ranks cannot be reached.
    """
    ranks = _ranks_of_the_environment()
    if ranks.size == 1:
        yield ranks
        return
    _connect()
    yield ranks
    dist.destroy_process_group()


@contextlib.contextmanager
def losing_ranks(ranks: Ranks, how_to_go_on: Callable[[], str]) -> Iterator[None]:
    """Turn the loss of another rank into one line.

    Args:
        ranks: the processes of the training.
        how_to_go_on: called when a rank is lost; says how the training can be continued.

    Raises:
        RankError: a rank was lost, and this is rank 0. Other ranks, and all whose loss is noticed by the process that
            started them, end without a message.
    """
    try:
        yield
    except RuntimeError as error:
        if ranks.size == 1 or not _is_lost_rank(error):
            raise
        if not ranks.is_first or was_launched():
            raise SystemExit(RankError.exit_code) from None
        raise RankError(
            f"one of the {ranks.size} processes of this training has ended or cannot be reached; {how_to_go_on()}"
        ) from None


def _ranks_of_the_environment() -> Ranks:
    if "RANK" not in os.environ and int(os.environ.get("SLURM_STEP_NUM_TASKS", 1)) > 1:
        # srun says the same in other words.
        nodes = int(os.environ.get("SLURM_STEP_NUM_NODES", os.environ.get("SLURM_NNODES", 1)))
        size = int(os.environ["SLURM_STEP_NUM_TASKS"])
        os.environ |= {
            "RANK": os.environ["SLURM_PROCID"],
            "LOCAL_RANK": os.environ["SLURM_LOCALID"],
            "GROUP_RANK": os.environ.get("SLURM_NODEID", "0"),
            "WORLD_SIZE": str(size),
            "LOCAL_WORLD_SIZE": str(size // nodes),
        }
        first = SLURMEnvironment.resolve_root_node_address(os.environ.get("SLURM_NODELIST", "localhost"))
        os.environ.setdefault("MASTER_ADDR", first)
        os.environ.setdefault("MASTER_PORT", str(15000 + int(os.environ.get("SLURM_JOB_ID", 0)) % 10000))
    try:
        rank, size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        local = int(os.environ.get("LOCAL_WORLD_SIZE", size))
    except ValueError as error:
        raise ConfigurationError(f"RANK, WORLD_SIZE, LOCAL_WORLD_SIZE: {error}; start with torchrun or srun") from None
    if size % local:
        raise ConfigurationError(f"{size} processes, {local} on this machine: expected as many on every machine")
    return Ranks(rank, size, size // local)


def _connect() -> None:
    backend = "gloo"
    if torch.cuda.is_available():
        local, gpus = int(os.environ.get("LOCAL_RANK", 0)), torch.cuda.device_count()
        if local >= gpus:
            raise ConfigurationError(f"process {local} of this machine has no GPU: it has {gpus}; use --devices {gpus}")
        torch.cuda.set_device(local)
        backend = "cpu:gloo,cuda:nccl"
    try:
        dist.init_process_group(backend, timeout=_LONGEST_WAIT)
    except (RuntimeError, ValueError, OSError) as error:
        where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        why = str(error).splitlines()[0]
        raise ConfigurationError(f"the other processes cannot be reached at {where} ({why})") from None


def _is_lost_rank(error: RuntimeError) -> bool:
    """Whether a collective operation failed because a rank has gone."""
    lost = ("Connection closed by peer", "Connection reset", "Broken pipe", "Timed out waiting", "NCCL", "gloo")
    return isinstance(error, dist.DistError) or any(word in str(error) for word in lost)
