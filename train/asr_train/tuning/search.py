"""From the options of asr-tune to a search: its data, the families that judge, and the features that trials share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from asr_runtime.errors import ConfigurationError, OutputError
from asr_train.data.families import FAMILIES_FILE, find_families
from asr_train.fitting.config import ClosedFormConfig, config_type
from asr_train.fitting.config_file import read_config
from asr_train.tuning.judging import Judge
from asr_train.tuning.shared_features import SharedFeatures, widest
from asr_train.tuning.space import CLOSED_FORM, LOOP, configured, read_space
from asr_train.tuning.study import Search

__all__ = ["prepared"]


def prepared(
    *,
    models: Sequence[str],
    config: Path | None,
    data: Path | None,
    families: Path | None,
    judge: Sequence[str],
    at_least: int,
    space: Path | None,
    trials: int,
    jobs: int,
    margin: float,
    warmup: int,
    storage: str | None,
    name: str,
    seed: int,
    output: Path,
    progress: bool,
) -> tuple[Search, Judge, SharedFeatures | None]:
    """Read data, families and space.

    Args:
        models: networks that are tried.
        config: TOML file with what every trial has; None: the recipe.
        data: folder; None: that of `config`, else `dataset`.
        families: CSV file; None: beside or in the data folder.
        judge: families that judge; empty: every second one.
        at_least: validation images that a family needs.
        space: TOML file; None: the default of the kind of training.
        trials: of the study in the end.
        jobs: processes.
        margin: by which a finished trial must be better to end another early; 0: none is ended early.
        warmup: steps before a trial may end.
        storage: file or URL of the database; None: `study.db` in `output`.
        name: of the study.
        seed: of the sampler.
        output: folder; it is made.
        progress: show progress bars.

    Raises:
        ConfigurationError: networks that are trained differently, families that cannot judge, a space that fits no
            network, or values that cannot work.
        DatasetError: the data folder or the table of families cannot be used.
        OutputError: the output folder cannot be made.
    """
    if len({config_type(model) for model in models}) > 1:
        raise ConfigurationError(
            "--model: asrnet-lite is solved in closed form and judged otherwise than networks that are trained; "
            "search for it in a separate study"
        )
    closed = config_type(models[0]) is ClosedFormConfig
    base = read_config(config, models[0]) if config else {}
    fields = {**base, "data": str(data or base.get("data", "dataset"))}
    fields.pop("model", None)
    pictures = configured({"model": models[0]}, fields).pictures()
    known = find_families(pictures, families or (Path(base["families"]) if base.get("families") else None))
    if known is None:
        raise ConfigurationError(f"asr-tune needs --families FILE, or {FAMILIES_FILE} in or beside {pictures.root}")
    judging = Judge(pictures, known, at_least, progress)
    if strangers := [family for family in judge if family not in judging.names]:
        raise ConfigurationError(f"--judge {strangers[0]}: expected one of {', '.join(judging.names)}")
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{output}: cannot be made ({error.strerror})") from None
    changed = read_space(space, models) if space else (CLOSED_FORM if closed else LOOP)
    place = storage or str(output / "study.db")
    search = Search(
        storage=place if "://" in place else f"sqlite:///{place}",
        name=name,
        models=tuple(models),
        base=fields,
        space=changed,
        judged=tuple(judge) or judging.names[::2],
        trials=trials,
        margin=margin or None,
        warmup=warmup,
        seed=seed,
        folder=output,
        processes=jobs,
    )
    return (
        search,
        judging,
        SharedFeatures(pictures, output, widest(changed, fields.get("options", {}))) if closed else None,
    )
