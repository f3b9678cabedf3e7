"""fit: a config to two trained towers in DIR/training."""

import contextlib
import dataclasses
import json
import logging
import os
import resource
import shutil
import sys
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import pytorch_lightning as lightning
import torch
from pytorch_lightning.callbacks import Callback, EarlyStopping, ModelCheckpoint

from retrieval.bundle import layout
from retrieval.common.console import note
from retrieval.common.errors import TrainError
from train.config import defaults
from train.config.components import fits_values
from train.config.load import Config
from train.data.cooccurrence import by_user, transitions, windowed
from train.data.datamodule import DataModule
from train.data.dataset import Dataset, as_sets, prepare
from train.data.transition_sampler import POPULARITY, TransitionSampler
from train.ease import fit_ease, warm_start
from train.ease.feature_rows import likeness_of
from train.loop import checkpoint, ensemble_weight, item_shrinkage
from train.loop.lightning_module import Module
from train.loop.progress import Progress, ending
from train.loop.refit import Previous
from train.model import build

WORK_NAME: Final = ".training-work"  # beside the published folder, until the training is whole
OLD_NAME: Final = ".training-old"
WINDOW: Final = 10  # places apart that items are counted together
WINDOW_UNORDERED: Final = 30
RESUME_NAME: Final = "resume.json"  # what a training must agree in to be gone on with
Monitored = tuple[str, Literal["min", "max"]]

RANKING: Final[Monitored] = ("ndcg@10", "max")  # what the best epoch is told by, and which way
RATING: Final[Monitored] = ("rmse", "min")


def fit(
    config: Config, out: Path, *, resume: bool = False, refit: bool = False, callbacks: Sequence[Callback] = ()
) -> dict[str, Any]:
    """Train and publish DIR/training whole; until then the previous one stands.

    callbacks: of Lightning, beside its own: what watches a training.
    Returns the summary. Raises TrainError where training diverges, cannot be resumed or has nothing to refit, or where
    `out` cannot be written to.
    """
    started = time.monotonic()
    _refuse_unwritable(out)
    previous = Previous(out) if refit else None
    if previous is not None:
        config = dataclasses.replace(config, split=dataclasses.replace(config.split, kind="none"))
    dataset = prepare(config, order=None if previous is None else previous.order)
    plan, alone = _plans(dataset, config, previous, resume=resume)
    if alone is not None and resume and _is_of(out, alone):
        plan, alone = alone, None
    if alone is not None and not plan.facts.ordered:
        note("towers are trained as well; both stand side by side where validation finds more by that")
    done = _train(plan, out, resume=resume, previous=previous, watching=callbacks)
    if alone is not None and _is_better(alone, plan, done):
        done = _train(alone, out, resume=False, previous=None, watching=callbacks)
    assert done is not None
    work, summary, reason = done
    summary["seconds"] = time.monotonic() - started
    (work / layout.SUMMARY).write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    _publish(work, out)
    kept = summary["best"]
    measured = ", ".join(f"{name} {value:.4f}" for name, value in kept.items() if "@" in name or name == "rmse")
    found = f"; kept epoch {kept['epoch']}: {measured}" if measured else ", on everything"
    note(f"trained {_epochs(summary['epochs'])} in {summary['seconds']:.0f} s{found}")
    if reason and not refit:
        note(reason)
    return summary


class _Plan(NamedTuple):
    """What is trained. config: resolved. form: the closed form to start from, if it is that.

    beside: what may have a share of the score.
    """

    dataset: Dataset
    config: Config
    facts: defaults.Statistics
    data: DataModule
    form: fit_ease.EaseTowers | None
    beside: ensemble_weight.Beside | None


def _plans(dataset: Dataset, config: Config, previous: Previous | None, *, resume: bool) -> tuple[_Plan, _Plan | None]:
    """What is trained, and the closed form alone where validation decides between the two.

    config: as `prepare` was given it. previous: what is refitted, where all is decided.
    """
    begun = resume or previous is not None  # as one of the two: more epochs may be of either
    lasting = dataclasses.replace(config, train=dataclasses.replace(config.train, epochs=None)) if begun else config
    if previous is not None:
        return _plan(dataset, previous, learned=previous.learned and defaults.may_learn(lasting)), None
    plan = _plan(dataset, None)
    if not len(plan.data.truth.users):
        return plan, None
    if dataset.order.unsure:
        note(
            f"the same items follow each other {dataset.order.repeats:.2f} times as often as by chance, so histories "
            "are tried as sequences and as sets"
        )
        sets = _plan(as_sets(dataset, config), None)
        if sets.form is None:
            return plan, None
        if plan.beside is not None:
            plan = plan._replace(beside=plan.beside.tuned(fit_ease.settings(sets.config), config))
        return plan, sets
    if plan.form is None or not defaults.may_learn(lasting) or build.given(plan.config.model.dim) > defaults.WIDE:
        return plan, None
    beside = ensemble_weight.Beside(plan.form, fit_ease.settings(plan.config), None, usual=1.0)
    return _plan(dataset, None, learned=True, beside=beside), plan


def _plan(
    dataset: Dataset, previous: Previous | None, *, learned: bool = False, beside: ensemble_weight.Beside | None = None
) -> _Plan:
    """Decide what a config leaves open.

    previous: what is refitted. learned: see `recipe.Statistics`. beside: what may have a share of the score, where
    that is made already.
    """
    facts = dataclasses.replace(defaults.statistics(dataset), learned=learned)
    resolved = defaults.resolve(dataset.config, facts)  # with the length of the history, which the data decided
    data = DataModule(dataset, resolved, ordered=facts.ordered)
    form = None
    if resolved.train.start == "linear":
        form = fit_ease.EaseTowers(data, fit_ease.chosen(dataset.config))
        settings = form.choose() if previous is None else previous.settings(dataset.config)
        resolved = defaults.resolve(fit_ease.put(dataset.config, settings), facts)
    if previous is not None:
        resolved = dataclasses.replace(resolved, train=dataclasses.replace(resolved.train, epochs=previous.epochs))
    data.config = resolved
    if beside is None and resolved.model.linear.share != 0:
        beside = ensemble_weight.wanted(data) if previous is None else previous.beside(data)
    return _Plan(dataset, resolved, facts, data, form, beside)


class _Done(NamedTuple):
    """A training in its work folder, which holds everything but the summary. reason: why it ended."""

    work: Path
    summary: dict[str, Any]
    reason: str | None


def _train(
    plan: _Plan, out: Path, *, resume: bool, previous: Previous | None, watching: Sequence[Callback]
) -> _Done | None:
    """Train as planned. previous: what is refitted. Returns None where the closed form beside had better be alone."""
    train = plan.config.train
    work = _work_folder(out, plan.config, plan.dataset.fingerprint(), resume=resume)
    dataclasses.replace(plan.dataset, config=plan.config).save(work)
    module, trainer = _run(plan, work, watching=watching)
    best = work / checkpoint.BEST_NAME
    unknown = None if previous is None else previous.unknown
    chosen = len(plan.data.truth.users) > 0 or unknown is not None
    # A closed form has seen to new items; ratings are no ranking. What was settled before is not settled twice.
    if checkpoint.strip(best) and chosen and train.start != "linear" and not fits_values(train.objective):
        item_shrinkage.finish(best, module, unknown=unknown)
    trained = time.monotonic()
    if plan.beside is not None:
        config = ensemble_weight.finish(best, module, plan.config, plan.beside)
        if config is None:
            return None
        plan = plan._replace(config=config)
        config.save(work)
    summary = _summary(module, trainer, plan, refit=previous is not None)
    summary["seconds_to_best"] += time.monotonic() - trained
    kept = checkpoint.read(best)
    summary["best"] |= kept.get("measured", {})
    summary["unknown"] = kept.get("unknown")
    if "beside" in kept:
        _count_beside(summary, kept["beside"], share=build.given(plan.config.model.linear.share))
    if previous is not None:
        summary["refitted_from"] = previous.measured()
    lines = "".join(json.dumps(epoch) + "\n" for epoch in module.epochs)
    (work / layout.EPOCHS).write_text(lines, encoding="utf-8")
    name, mode = monitored(plan.config)
    most, learned = build.given(train.epochs), plan.facts.learned  # which a config that names epochs would not be
    reason = ending(module.epochs, name=name, mode=mode, most=most, resumed=learned)
    return _Done(work, summary, reason)


def _is_better(alone: _Plan, plan: _Plan, done: _Done | None) -> bool:
    """Whether validation prefers the closed form alone to what was trained, which is said.

    done: by the plan; None where the share that was chosen says so.
    """
    assert alone.form is not None
    found = alone.form.ndcg(fit_ease.settings(alone.config), k=10)
    if done is None:
        note(f"the closed form stands alone, with ndcg@10 {found:.4f}: the towers beside it find no more beyond chance")
    elif plan.facts.ordered:
        as_sequences = done.summary["best"]["ndcg@10"]
        better = "sets" if found > as_sequences else "sequences"
        note(f"histories are taken as {better}: ndcg@10 {as_sequences:.4f} as sequences, {found:.4f} as sets")
        return better == "sets"
    else:
        note(f"alone the closed form has ndcg@10 {found:.4f}")
    return done is None


def _count_beside(summary: dict[str, Any], stands: Mapping[str, Any], *, share: float) -> None:
    """Have a summary of the towers speak of what stands beside them as well."""
    summary["parameters"] += stands["parameters"]
    if stands["measured"]:
        name = RANKING[0]
        without, with_it = summary["best"][name], stands["measured"][name]
        told = f"{name} {without:.4f} without it, {with_it:.4f} with it"
        if with_it < without:
            told += ", which may be chance; model.linear.share = 0 leaves it out"
        note(f"beside the towers a closed form has {share:.0%} of the score: {told}")
        summary["best"] |= stands["measured"]


def _epochs(count: int) -> str:
    return "1 epoch" if count == 1 else f"{count} epochs"


def _run(plan: _Plan, work: Path, *, watching: Sequence[Callback]) -> tuple[Module, lightning.Trainer]:
    dataset, config, data, ordered = plan.dataset, plan.config, plan.data, plan.facts.ordered
    train = config.train
    torch.manual_seed(train.seed)
    frequency = build.frequency(data.histories.items, catalogue=dataset.items.height)
    pair = build.pair(config, dataset.preprocess, frequency=frequency)
    if data.histories.impressions is not None:
        impressions = data.histories.impressions.indices
        pair.impression_frequency = build.frequency(impressions, catalogue=dataset.items.height)
    last = work / checkpoint.LAST_NAME
    dim = build.given(config.model.dim)
    catalogue, window = dataset.items.height, WINDOW if ordered else WINDOW_UNORDERED
    if train.distillation:
        expected = transitions(
            data.histories, catalogue=catalogue, window=window, symmetric=not ordered, to_power=POPULARITY
        )
        data.transitions = TransitionSampler(expected)
        pair.soft_target_frequency = torch.from_numpy(data.transitions.frequency)
    if plan.form is not None and not last.exists():
        plan.form.begin(pair, fit_ease.settings(config))
    if train.start == "spectral" and not last.exists():
        counts = (
            windowed(data.histories, likeness_of(data, config), window=WINDOW)
            if ordered
            else by_user(data.histories, catalogue=catalogue)
        )
        generator = np.random.default_rng(train.seed)
        vectors = warm_start.spectral(counts, items=catalogue, dim=dim, generator=generator)
        warm_start.start(pair, vectors, data.items)
    asked, held_out = len(data.truth.users), data.truth.held_out
    if asked < held_out:
        note(f"validation asks {asked:,} of {held_out:,} held-out users after each epoch, drawn at random")
    module = Module(pair, config)
    name, mode = monitored(config)
    validated = len(data.truth.users) > 0 and (data.ratings is None or len(data.ratings.values) > 0)
    callbacks: list[Callback] = [
        Progress(),
        *watching,
        ModelCheckpoint(
            dirpath=work,
            filename=Path(checkpoint.BEST_NAME).stem,
            monitor=name if validated else None,
            mode=mode if validated else "max",  # not that of the callback below: Lightning tells them apart by it
            save_weights_only=True,
            enable_version_counter=False,
        ),
        ModelCheckpoint(dirpath=work, filename=Path(checkpoint.LAST_NAME).stem, enable_version_counter=False),
    ]
    if validated:
        callbacks.append(EarlyStopping(name, mode=mode, patience=build.given(train.patience), check_finite=False))
    else:
        note(f"no validation rows: training for {_epochs(build.given(train.epochs))}, and keeping the last")
    with _quiet_lightning():
        trainer = lightning.Trainer(
            accelerator=train.accelerator,
            devices=1,
            max_epochs=train.epochs,
            callbacks=callbacks,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            reload_dataloaders_every_n_epochs=1,
            default_root_dir=work,
        )
        try:
            trainer.fit(module, datamodule=data, ckpt_path=last if last.exists() else None, weights_only=True)
        except SystemExit:
            # Lightning turns Ctrl-C into an exit of its own.
            raise KeyboardInterrupt from None
    if trainer.interrupted:
        raise KeyboardInterrupt
    if not module.epochs:
        raise TrainError(f"{work}: nothing was trained: no epoch was run")
    return module, trainer


def monitored(config: Config) -> Monitored:
    """What tells the best epoch: ranking, or where ratings are fitted the error."""
    return RATING if fits_values(config.train.objective) else RANKING


def _refuse_unwritable(out: Path) -> None:
    """Before the tables are read, which may take minutes."""
    there = next(place for place in (out.absolute(), *out.absolute().parents) if place.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        what = "is not a folder" if not there.is_dir() else "cannot be written to"
        raise TrainError(f"{there}: {what}; name another folder with --out")


def _work_folder(out: Path, config: Config, fingerprint: str, *, resume: bool) -> Path:
    """The folder to train in: fresh, or, to resume, with the last checkpoint of a training of the same kind."""
    work, done, old = out / WORK_NAME, out / layout.TRAINING, out / OLD_NAME
    if old.exists() and not done.exists():
        old.rename(done)  # a publication was cut short between its two renames
    name = _kind(config, fingerprint)
    if resume:
        source = _resumable(out)
        if source is None:
            raise TrainError(f'{out}: nothing to resume; run "twotower train" without --resume')
        if json.loads((source / RESUME_NAME).read_text(encoding="utf-8")) != name:
            raise TrainError(
                f"{source}: that training had another config, other data or another version's towers; run without "
                "--resume, or with the config it was started with (train.epochs and train.patience may differ)"
            )
        if source != work:
            shutil.rmtree(work, ignore_errors=True)
            shutil.copytree(source, work)
        return work
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    (work / RESUME_NAME).write_text(json.dumps(name, ensure_ascii=False), encoding="utf-8")
    return work


def _resumable(out: Path) -> Path | None:
    """The folder of the training that `--resume` goes on with: one that was broken off before one that ended."""
    folders = (out / WORK_NAME, out / layout.TRAINING)
    return next((folder for folder in folders if (folder / checkpoint.LAST_NAME).exists()), None)


def _is_of(out: Path, plan: _Plan) -> bool:
    """Whether the training to resume is of this plan."""
    source = _resumable(out)
    if source is None:
        return False
    kind = json.loads((source / RESUME_NAME).read_text(encoding="utf-8"))
    return bool(kind == _kind(plan.config, plan.dataset.fingerprint()))


def _kind(config: Config, fingerprint: str) -> dict[str, Any]:
    """What must be the same for a training to go on."""
    return {"config": _comparable(config), "fingerprint": fingerprint, "towers": checkpoint.TOWERS}


def _comparable(config: Config) -> Any:
    """Of a config what must be the same: all but where it is read from and how long it lasts."""
    content = config.to_dict()
    del content["source"]
    for key in ("epochs", "patience", "accelerator"):
        del content["train"][key]
    return json.loads(json.dumps(content))


def _publish(work: Path, out: Path) -> None:
    """Put the finished training in the place of the previous one."""
    done, old = out / layout.TRAINING, out / OLD_NAME
    shutil.rmtree(old, ignore_errors=True)
    if done.exists():
        done.rename(old)
    work.rename(done)
    shutil.rmtree(old, ignore_errors=True)


def _summary(module: Module, trainer: lightning.Trainer, plan: _Plan, *, refit: bool) -> dict[str, Any]:
    """What `summary.json` says of a training."""
    name, mode = monitored(plan.config)
    measured = [epoch for epoch in module.epochs if name in epoch]
    choose = max if mode == "max" else min
    best = choose(measured, key=lambda epoch: float(epoch[name])) if measured else module.epochs[-1]
    trained_s = sum(float(epoch["seconds"]) for epoch in module.epochs)
    return {
        "best": dict(best),  # what is done once training is over does not change what its epochs were
        "epochs": len(module.epochs),
        "steps": trainer.global_step,
        "seconds_to_best": sum(float(epoch["seconds"]) for epoch in module.epochs[: int(best["epoch"])]),
        "interactions_per_second": plan.facts.interactions * len(module.epochs) / max(trained_s, 1e-9),
        "peak_memory_bytes": _peak_memory_bytes(),
        "refit": refit,
        "recipe": {"model": plan.config.to_dict()["model"], "train": plan.config.to_dict()["train"]},
        "statistics": dataclasses.asdict(plan.facts),
        "parameters": sum(weight.numel() for weight in module.pair.parameters()),
        "fingerprint": plan.dataset.fingerprint(),
    }


def _peak_memory_bytes() -> int:
    """The most memory this process held so far."""
    status = Path("/proc/self/status")
    if status.exists():  # on Linux `ru_maxrss` begins with what the process that started this one held
        line = next((line for line in status.read_text().splitlines() if line.startswith("VmHWM:")), None)
        if line is not None:
            return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


@contextlib.contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Keep back what Lightning says of itself: its advice is on loaders and loggers that are not used here."""
    logger = logging.getLogger("pytorch_lightning")
    level = logger.level
    logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"pytorch_lightning|lightning_fabric|torch")
        warnings.filterwarnings("ignore", message=r".*(does not have many workers|checkpoint directory|ckpt_path).*")
        try:
            yield
        finally:
            logger.setLevel(level)
