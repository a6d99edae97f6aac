"""Start the ranks of a training on this machine, with torchrun's own agent, and end them all when one is lost."""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from asr_runtime.errors import ConfigurationError, RankError

__all__ = ["launch", "note_run", "was_launched"]

_NOTE = "ASR_TRAIN_RUN_NOTE"
"""Names a file in which rank 0 writes the run folder, so that the launcher reports a lost rank once."""
_PORT = 29500


def was_launched() -> bool:
    """Return whether `launch` has started this process."""
    return _NOTE in os.environ


def note_run(folder: Path) -> None:
    """Tell the process that started the ranks which run folder they write."""
    if was_launched():
        Path(os.environ[_NOTE]).write_text(str(folder))


def launch(arguments: Sequence[str], devices: int, nodes: int, how_to_go_on: Callable[[Path], str]) -> None:
    """Run the same asr-train command in `devices` processes on this machine, and wait for them.

    With several nodes the same command runs on each, with MASTER_ADDR (and MASTER_PORT, 29500 by default) naming the
    first one and NODE_RANK numbering them from 0.

    Args:
        arguments: of the command.
        devices: processes on this machine.
        nodes: machines.
        how_to_go_on: says of a run folder how its run can be continued.

    Raises:
        ConfigurationError: several nodes, and no address of the first.
        RankError: a process was killed; all others have been ended.
        SystemExit: a process ended with an error that it has printed, or a signal came.
    """
    import torch
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    if (devices_here := torch.cuda.device_count()) and devices > devices_here:
        raise ConfigurationError(f"--devices {devices}: this machine has {devices_here} GPUs")
    for name in ("torch.distributed.elastic", "torch.distributed.launcher"):
        for each in (name, *(n for n in logging.root.manager.loggerDict if n.startswith(name + "."))):
            logging.getLogger(each).setLevel(logging.CRITICAL)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // devices)))
    with tempfile.TemporaryDirectory(prefix="asr-train-") as folder:
        note = Path(folder) / "run"
        config = LaunchConfig(
            nodes, nodes, devices, run_id="asr-train", max_restarts=0, logs_specs=DefaultLogsSpecs(folder),
            **_rendezvous(nodes),
        )  # fmt: skip
        command = ["-c", "from asr_train.cli import train_command as c; c()", *arguments]
        os.environ[_NOTE] = str(note)
        try:
            elastic_launch(config, sys.executable)(*command)
        except ChildFailedError as error:
            killed = {rank: failure for rank, failure in error.failures.items() if failure.exitcode < 0}
            if not killed:
                raise SystemExit(error.get_first_failure()[1].exitcode) from None
            rank, failure = next(iter(killed.items()))
            name = signal.Signals(-failure.exitcode).name
            raise RankError(
                f"process {rank} of {devices * nodes} was killed by {name}; all others were stopped; "
                f"{_go_on(note, how_to_go_on)}"
            ) from None
        except SignalException as error:
            logging.getLogger("asr_train").warning("stopped by %s; %s", error.sigval.name, _go_on(note, how_to_go_on))
            raise SystemExit(128 + error.sigval) from None
        finally:
            del os.environ[_NOTE]


def _rendezvous(nodes: int) -> dict[str, Any]:
    """Say where the ranks meet."""
    if nodes == 1:
        return {"rdzv_backend": "c10d", "rdzv_endpoint": "localhost:0", "local_addr": "localhost"}
    try:
        address, node = os.environ["MASTER_ADDR"], int(os.environ["NODE_RANK"])
    except (KeyError, ValueError):
        raise ConfigurationError(
            f"--nodes {nodes}: expected MASTER_ADDR, the address of the first machine, and NODE_RANK, 0 to "
            f"{nodes - 1}, in the environment; or start with torchrun or srun"
        ) from None
    endpoint = f"{address}:{os.environ.get('MASTER_PORT', _PORT)}"
    return {"rdzv_backend": "static", "rdzv_endpoint": endpoint, "rdzv_configs": {"rank": node, "timeout": 900}}


def _go_on(note: Path, how_to_go_on: Callable[[Path], str]) -> str:
    return how_to_go_on(Path(note.read_text())) if note.is_file() else "no run folder was made yet; start again"
