"""Predict an endpoint from cached tokens: a linear or attentive probe of frozen hub tokens, or fine-tuning of the fusion.

What is chosen (the penalty of the linear probe, the epoch of the others) is chosen on the validation people and reported
on the test people, over the data set as a whole; with preset `reference` as the published code does. Runs of one person
are averaged.

Examples
--------
::

    python -m bhx_model.evaluation.evaluate --method probe --fusion results/experiments/demo/fusion \
        --tokens results/experiments/demo/tokens/patients/index.json \
        --labels results/endpoints/diagnosis/seed-0.json --seed 0 --experiment demo \
        --out results/experiments/demo/endpoints/diagnosis/probe_seed-0
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import functools
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from bhx_model import config
from bhx_model.atomic_write import read_json, write_json
from bhx_model.command_line import run_command
from bhx_model.data import loader, shards, token_index
from bhx_model.data.batch import Batch
from bhx_model.data.shards import Index, Sample
from bhx_model.errors import DataError
from bhx_model.evaluation import metrics
from bhx_model.nets.fusion import FusionModel
from bhx_model.nets.heads import AttentiveProbe, EndpointModel, HubHead, endpoint_loss, n_outputs
from bhx_model.training import optim, schedules
from bhx_model.training.trained import Trained, load_trained

logger = logging.getLogger(__name__)

SPLITS = ("train", "val", "test")
#: Inverse strengths of the probe's penalty, for features of unit variance.
STRENGTHS = tuple(10.0**e for e in range(-5, 4))


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """People with tokens and labels."""

    labels: Mapping[str, Any]
    """The split file."""
    subjects: list[str]
    target: np.ndarray
    """(n,) class numbers or values."""
    split: np.ndarray
    """(n,) train, val or test."""
    runs: list[tuple[Sample, Sample]]
    """Tokens of function and structure."""
    person: np.ndarray
    """(runs,) number of the person of each run."""
    n_rois: int
    left_out: list[dict[str, str]]

    @property
    def n_classes(self) -> int:
        """Classes; 0 for a regression."""
        return len(self.labels["classes"])

    def of(self, split: str) -> np.ndarray:
        """Which people are in a part of the split."""
        return self.split == split


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; 0 when evaluated, 1 on a fault."""
    arguments = _parse(argv)
    return run_command(lambda: _evaluate(arguments))


def _evaluate(arguments: argparse.Namespace) -> None:
    changes = {**config.preset_evaluation(arguments.preset), **arguments.set}
    settings = config.from_dict(config.Finetuning, changes, "--set")
    labels = read_labels(arguments.labels)
    if labels["seed"] != arguments.seed:
        msg = f"{arguments.labels} is the split of seed {labels['seed']}, not {arguments.seed}: name the other one"
        raise DataError(msg)
    trained = load_trained(arguments.fusion, "fusion")
    tokens = token_index.open_tokens(arguments.tokens)
    check_encoders(trained, tokens)
    shards.verify(shard for listed in tokens.shards.values() for shard in listed)
    endpoint = join(labels, tokens)
    if settings.choose_on == "test":
        endpoint = swap_parts(endpoint)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if arguments.method == "probe":
        scores, chosen = probe(endpoint, hub_features(endpoint, trained, device))
    elif arguments.method == "attentive":
        hub = hub_tokens(endpoint, trained, device)
        scores, chosen = attentive(endpoint, hub, trained.config.model.heads, settings, arguments.seed)
    else:
        scores, chosen = finetune(endpoint, trained, settings, arguments.seed, device)
    synthetic = tokens.synthetic or bool(trained.run["synthetic"])
    card, rows = report(
        endpoint, scores, batch_size=settings.batch_size if settings.scores_over == "batches" else None
    )
    card |= {
        "experiment": arguments.experiment,
        "method": arguments.method,
        "synthetic": synthetic,
        "choose_on": settings.choose_on,
        "scores_over": settings.scores_over,
        **chosen,
    }
    write(card, rows, arguments.out)
    logger.info(f"{labels['endpoint']} {arguments.method} seed {labels['seed']}: {_line(card)}")


# --- what is evaluated


def read_labels(path: Path) -> dict[str, Any]:
    """Read a split file of an endpoint."""
    labels = read_json(path, "make the split again")
    missing = {"endpoint", "cohort", "kind", "classes", "seed", "rows"} - labels.keys()
    if missing:
        msg = f"{path} has no {', '.join(sorted(missing))}, it is no split of an endpoint: make it again"
        raise DataError(msg)
    wrong = _label_fault(labels)
    if wrong is not None:
        msg = f"{path}: {wrong}: make the split again"
        raise DataError(msg)
    return labels


def _label_fault(labels: Mapping[str, Any]) -> str | None:
    """What is wrong with the content of a split file, if anything is."""
    kind, classes, rows = labels["kind"], labels["classes"], labels["rows"]
    if not isinstance(classes, list) or not isinstance(rows, list):
        return "classes and rows are no lists"
    fitting = {"binary": len(classes) == 2, "multiclass": len(classes) > 2, "regression": not classes}
    if not fitting.get(kind, False):
        return f"{len(classes)} classes do not make an endpoint of kind {kind!r}"
    people: set[str] = set()
    for row in rows:
        if not isinstance(row, dict) or not {"subject", "label", "split"} <= row.keys():
            return "a row has not subject, label and split"
        subject, label = row["subject"], row["label"]
        if not isinstance(subject, str) or subject in people:
            return f"the person {subject!r} is named twice, or by no text"
        if row["split"] not in SPLITS:
            return f"{subject} is in the part {row['split']!r}, there are {', '.join(SPLITS)}"
        number = type(label) in (int, float) and np.isfinite(label)
        if not number or (classes and label not in range(len(classes))):
            return f"{subject} has the label {label!r}, {'a class number' if classes else 'a number'} was expected"
        people.add(subject)
    return None


def check_encoders(trained: Trained, tokens: Index) -> None:
    """Refuse tokens of other encoders than those the fusion was trained on."""
    if trained.run["model_metadata"]["encoders"] != tokens.metadata["encoders"]:
        msg = f"{tokens.path} are tokens of other encoders than the fusion was trained on: make the tokens again"
        raise DataError(msg)


def join(labels: Mapping[str, Any], tokens: Index) -> Endpoint:
    """Bring labels and tokens together; people without tokens are left out, and named.

    Raises
    ------
    ValueError
        If they are of different cohorts, or a part of the split has nobody with tokens.
    """
    if labels["cohort"] != tokens.cohort:
        msg = f"labels of cohort {labels['cohort']}, tokens of {tokens.cohort}: name the tokens of the former"
        raise DataError(msg)
    by_person: dict[str, list[tuple[Sample, Sample]]] = {}
    for pair in token_index.pairs(tokens):
        by_person.setdefault(pair[0].subject.split("/")[1], []).append(pair)
    rows = [row for row in labels["rows"] if row["subject"] in by_person]
    absent = [row["subject"] for row in labels["rows"] if row["subject"] not in by_person]
    for split in SPLITS:
        if not any(row["split"] == split for row in rows):
            msg = (
                f"nobody in the {split} part of {labels['endpoint']} has tokens: look at the tokens' left_out"
            )
            raise DataError(msg)
    if labels["classes"] and len({row["label"] for row in rows if row["split"] == "train"}) < 2:
        msg = f"everybody in the train part of {labels['endpoint']} is of one class: split again, with people of others"
        raise DataError(msg)
    runs = [(pair, number) for number, row in enumerate(rows) for pair in by_person[row["subject"]]]
    return Endpoint(
        labels=labels,
        subjects=[row["subject"] for row in rows],
        target=np.array(
            [row["label"] for row in rows], np.float64 if labels["kind"] == "regression" else np.int64
        ),
        split=np.array([row["split"] for row in rows]),
        runs=[pair for pair, _ in runs],
        person=np.array([number for _, number in runs]),
        n_rois=token_index.fusion_inputs([tokens]).rois,
        left_out=[{"subject": s, "reason": "no tokens: a modality is missing"} for s in absent],
    )


def swap_parts(endpoint: Endpoint) -> Endpoint:
    """Call the validation people test and the test people val, as the published code does."""
    names = {"train": "train", "val": "test", "test": "val"}
    return dataclasses.replace(endpoint, split=np.array([names[part] for part in endpoint.split]))


# --- linear probe


def hub_features(endpoint: Endpoint, trained: Trained, device: torch.device) -> np.ndarray:
    """Mean hub token of every person, over the tokens and over the person's runs: (n, D) float64."""
    return _by_person(endpoint, trained, device, lambda hub_BHD: hub_BHD.double().mean(dim=1))


def hub_tokens(endpoint: Endpoint, trained: Trained, device: torch.device) -> np.ndarray:
    """Hub tokens of every person, averaged over the person's runs: (n, H, D) float64."""
    return _by_person(endpoint, trained, device, lambda hub_BHD: hub_BHD.double())


@torch.no_grad()
def _by_person(
    endpoint: Endpoint, trained: Trained, device: torch.device, reduce: Callable[[Tensor], Tensor]
) -> np.ndarray:
    """What `reduce` leaves of the hub tokens of every run, averaged over each person's runs: (n, ...)."""
    model = cast(FusionModel, trained.model).to(device).eval()
    total: np.ndarray | None = None
    everybody = np.ones(len(endpoint.subjects), bool)
    for ((numbers, batch),) in _read(endpoint, _alike(endpoint, everybody)):
        with _autocast(trained, device):
            found = reduce(model.encode(*_on(batch, device))).cpu().numpy()
        if total is None:
            total = np.zeros((len(endpoint.subjects), *found.shape[1:]))
        np.add.at(total, endpoint.person[numbers], found)
    assert total is not None  # `join` refuses an endpoint without runs
    runs = np.bincount(endpoint.person, minlength=len(total))
    return total / runs.reshape(-1, *[1] * (total.ndim - 1))


def probe(endpoint: Endpoint, features: np.ndarray) -> tuple[np.ndarray, dict[str, Any]]:
    """Fit a linear model on the training people, its penalty chosen on the validation people.

    Parameters
    ----------
    endpoint : Endpoint
    features : ndarray, (n, D)

    Returns
    -------
    scores : ndarray, (n, classes) probabilities or (n, 1) predictions
    chosen : dict
        ``strength``, inverse of the penalty.
    """
    from sklearn.linear_model import LogisticRegression, Ridge

    train, val = endpoint.of("train"), endpoint.of("val")
    centre, scale = features[train].mean(axis=0), features[train].std(axis=0)
    x = (features - centre) / np.where(scale > 0, scale, 1.0)
    y = endpoint.target
    best: tuple[float, np.ndarray, float] | None = None
    for strength in STRENGTHS:
        if endpoint.n_classes:
            model = LogisticRegression(C=strength, max_iter=2000).fit(x[train], y[train])
            scores = np.zeros((len(x), endpoint.n_classes))
            scores[:, model.classes_] = model.predict_proba(x)
        else:
            scores = Ridge(alpha=1 / strength).fit(x[train], y[train]).predict(x)[:, None]
        loss = _loss(scores[val], y[val], endpoint.n_classes)
        if best is None or loss < best[0]:
            best = (loss, scores, strength)
    assert best is not None
    return best[1], {"strength": best[2]}


def _loss(scores: np.ndarray, target: np.ndarray, n_classes: int) -> float:
    """Negative log likelihood, or mean squared error: smooth, where accuracy of a few people is not."""
    if n_classes:
        return float(-np.log(np.clip(scores[np.arange(len(target)), target], 1e-12, 1)).mean())
    return float(((scores[:, 0] - target) ** 2).mean())


# --- attentive probe


def attentive(
    endpoint: Endpoint, tokens: np.ndarray, heads: int, settings: config.Finetuning, seed: int
) -> tuple[np.ndarray, dict[str, Any]]:
    """Train one query that attends to the frozen hub tokens; the epoch that is best on the validation people predicts.

    Parameters
    ----------
    endpoint : Endpoint
    tokens : ndarray, (n, H, D)
    heads : int
        Attention heads.
    settings : config.Finetuning
        Epochs, batch size, learning rate, warm-up, weight decay and label smoothing.
    seed : int

    Returns
    -------
    scores : ndarray, (n, classes) probabilities or (n, 1) predictions
    chosen : dict
        ``epoch``, counted from 1, and the settings.
    """
    torch.manual_seed(seed)
    train, val = endpoint.of("train"), endpoint.of("val")
    spread = tokens[train].std(axis=(0, 1))
    scaled = (tokens - tokens[train].mean(axis=(0, 1))) / np.where(spread > 0, spread, 1)
    x = torch.from_numpy(scaled).float()
    target, scale, centre = _target(endpoint)
    kind = endpoint.labels["kind"]
    model = AttentiveProbe(x.shape[-1], n_outputs(kind, endpoint.n_classes), heads)
    optimizer = optim.adamw(optim.parameter_groups(list(model.named_parameters())), betas=(0.9, 0.999))
    people = np.flatnonzero(train)
    per_epoch = -(-len(people) // settings.batch_size)
    best: tuple[float, int, np.ndarray] | None = None
    for epoch in range(settings.epochs):
        order = np.random.default_rng([seed, epoch]).permutation(people)
        for place in range(per_epoch):
            batch = order[place * settings.batch_size :][: settings.batch_size]
            lr = _learning_rate(settings, epoch * per_epoch + place, per_epoch)
            optim.set_schedule(optimizer, lr=lr, weight_decay=settings.weight_decay)
            loss = endpoint_loss(model(x[batch]), target[batch], kind, settings.label_smoothing)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            output = model(x)
        scores = (output.softmax(dim=-1) if endpoint.n_classes else output).double().numpy() * scale + centre
        found = _loss(scores[val], endpoint.target[val], endpoint.n_classes)
        if best is None or found < best[0]:
            best = (found, epoch + 1, scores)
    assert best is not None
    return best[2], {"epoch": best[1], "settings": dataclasses.asdict(settings)}


def _target(endpoint: Endpoint) -> tuple[Tensor, float, float]:
    """What is learned, and its scale and centre: values are in units of their spread among the training people."""
    if endpoint.n_classes:
        return torch.from_numpy(endpoint.target), 1.0, 0.0
    values = endpoint.target[endpoint.of("train")]
    centre, scale = float(values.mean()), float(values.std()) or 1.0
    return torch.from_numpy((endpoint.target - centre) / scale), scale, centre


def _learning_rate(settings: config.Finetuning, step: int, per_epoch: int) -> float:
    steps = settings.epochs * per_epoch
    warmup = min(settings.warmup_epochs * per_epoch, steps - 1)
    return schedules.warmup_cosine(step, steps=steps, warmup=warmup, peak=settings.lr, end=settings.min_lr)


# --- fine-tuning


def finetune(
    endpoint: Endpoint, trained: Trained, settings: config.Finetuning, seed: int, device: torch.device
) -> tuple[np.ndarray, dict[str, Any]]:
    """Train fusion encoder and head together; the epoch that is best on the validation people predicts.

    Returns
    -------
    scores : ndarray, (n, classes) probabilities or (n, 1) predictions
    chosen : dict
        ``epoch``, counted from 1, and the settings.
    """
    torch.manual_seed(seed)
    base = cast(FusionModel, trained.model)
    fusion = FusionModel(dataclasses.replace(base.config, drop_path=settings.drop_path), base.inputs)
    fusion.load_state_dict(base.state_dict())
    kind = endpoint.labels["kind"]
    head = HubHead(base.config.width, n_outputs(kind, endpoint.n_classes))
    model = EndpointModel(fusion, head).to(device)
    # the decoder takes no part
    used = [
        (name, p)
        for name, p in model.named_parameters()
        if not name.startswith(("fusion.decoder", "fusion.mask"))
    ]
    groups = optim.parameter_groups(used, layer_decay=settings.layer_decay, n_blocks=base.config.depth)
    optimizer = optim.adamw(groups, betas=(0.9, 0.999))

    train_people = endpoint.of("train")
    target, scale, centre = _target(endpoint)
    runs = [int(n) for n in np.flatnonzero(train_people[endpoint.person])]
    buckets = [_patches(endpoint, number) for number in runs]
    per_epoch = -(-len(runs) // settings.batch_size)
    best: tuple[float, int, dict[str, Tensor]] | None = None
    val = endpoint.of("val")
    for epoch in range(settings.epochs):
        model.train()
        order = loader.epoch_batches(buckets, batch_size=settings.batch_size, seed=seed, epoch=epoch)
        batches = [[[runs[place] for place in group] for group in batch] for batch in order]
        for place, parts in enumerate(_read(endpoint, batches)):
            step = epoch * per_epoch + place
            lr = _learning_rate(settings, step, per_epoch)
            optim.set_schedule(optimizer, lr=lr, weight_decay=settings.weight_decay)
            size = sum(len(numbers) for numbers, _ in parts)
            for numbers, batch in parts:
                wanted = target[endpoint.person[numbers]].to(device)
                with _autocast(trained, device):
                    output = model(*_on(batch, device))
                    loss = endpoint_loss(output, wanted, kind, settings.label_smoothing)
                (loss * (len(numbers) / size)).backward()
            norm = torch.nn.utils.clip_grad_norm_([p for _, p in used], settings.clip)
            if not torch.isfinite(norm):
                people = sorted(
                    {endpoint.subjects[endpoint.person[n]] for numbers, _ in parts for n in numbers}
                )
                msg = f"the gradient of step {step + 1} is not finite, people: {', '.join(people)}: lower --set lr"
                raise DataError(msg)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        scores = _scores(endpoint, val, model, trained, device) * scale + centre
        loss = _loss(scores[val], endpoint.target[val], endpoint.n_classes)
        if best is None or loss < best[0]:
            best = (loss, epoch + 1, {name: value.clone() for name, value in model.state_dict().items()})
        logger.info(
            f"{endpoint.labels['endpoint']} finetune seed {seed}: epoch {epoch + 1} of {settings.epochs},"
            f" validation loss {loss:.4f}, best {best[0]:.4f} in epoch {best[1]}"
        )
    assert best is not None
    model.load_state_dict(best[2])
    everybody = np.ones(len(endpoint.subjects), bool)
    scores = _scores(endpoint, everybody, model, trained, device) * scale + centre
    return scores, {"epoch": best[1], "settings": dataclasses.asdict(settings)}


@torch.no_grad()
def _scores(
    endpoint: Endpoint,
    people: np.ndarray,
    model: EndpointModel,
    trained: Trained,
    device: torch.device,
) -> np.ndarray:
    """Probabilities or (standardised) predictions, averaged over runs; 0 for those who are not among `people`."""
    model.eval()
    total = np.zeros((len(endpoint.subjects), endpoint.n_classes or 1))
    for ((numbers, batch),) in _read(endpoint, _alike(endpoint, people)):
        with _autocast(trained, device):
            output = model(*_on(batch, device)).float()
        if endpoint.n_classes:
            output = output.softmax(dim=-1)
        np.add.at(total, endpoint.person[numbers], output.double().cpu().numpy())
    return total / np.bincount(endpoint.person, minlength=len(total))[:, None]


# --- reading tokens


def _patches(endpoint: Endpoint, run: int) -> int:
    """Time patches of a run."""
    return endpoint.runs[run][0].n_tokens // endpoint.n_rois


def _alike(endpoint: Endpoint, people: np.ndarray, size: int = 16) -> list[list[list[int]]]:
    """Cut the runs of some people into batches of equally many patches."""
    by_patches: dict[int, list[int]] = {}
    for number in map(int, np.flatnonzero(people[endpoint.person])):
        by_patches.setdefault(_patches(endpoint, number), []).append(number)
    return [[listed[i : i + size]] for listed in by_patches.values() for i in range(0, len(listed), size)]


def _read(
    endpoint: Endpoint, batches: Sequence[Sequence[Sequence[int]]]
) -> Iterator[list[tuple[list[int], Batch]]]:
    """Read batches ahead of their use: the runs of each part, and their tokens."""

    def load(batch: Sequence[Sequence[int]]) -> list[tuple[list[int], Batch]]:
        return [(list(numbers), _load(endpoint, numbers)) for numbers in batch]

    return loader.in_order((functools.partial(load, batch) for batch in batches), workers=1, ahead=2)


def _load(endpoint: Endpoint, numbers: Sequence[int]) -> Batch:
    chosen = [endpoint.runs[number] for number in numbers]
    tensors = token_index.read_pairs(chosen, endpoint.n_rois)
    keys = [run.key for run, _ in chosen]
    return Batch(keys, tensors, n_patches=_patches(endpoint, numbers[0])).pin()


def _on(batch: Batch, device: torch.device) -> tuple[Tensor, Tensor, int]:
    """Arguments of the fusion's encoder."""
    tensors = batch.to(device).tensors
    return tensors["structure"].float(), tensors["function"].float(), batch.n_patches


def _autocast(trained: Trained, device: torch.device) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=trained.config.train.amp == "bf16")


# --- what is told


def report(
    endpoint: Endpoint, scores: np.ndarray, *, batch_size: int | None = None
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Compute metrics of the test people and list everybody's prediction.

    Parameters
    ----------
    endpoint : Endpoint
    scores : ndarray, (n, classes) probabilities or (n, 1) predictions
    batch_size : int, optional
        Average the metrics of batches of so many people, as the published code does; None takes all at once.
    """
    labels, target, test = endpoint.labels, endpoint.target, endpoint.of("test")
    n = endpoint.n_classes
    predicted = scores.argmax(axis=1) if n else scores[:, 0]
    people = np.flatnonzero(test)
    size = batch_size or len(people)
    batches = [people[start : start + size] for start in range(0, len(people), size)]
    parts = [
        metrics.classification(target[b], predicted[b], scores[b], n)
        if n
        else metrics.regression(target[b], predicted[b])
        for b in batches
    ]
    shares = [len(b) / len(people) for b in batches]
    found = {
        name: sum(share * part[name] for share, part in zip(shares, parts, strict=True)) for name in parts[0]
    }
    score = predicted if not n else scores[:, 1] if n == 2 else scores.max(axis=1)
    card = {
        "endpoint": labels["endpoint"],
        "seed": labels["seed"],
        "kind": labels["kind"],
        "classes": labels["classes"],
        **{f"n_{split}": int(endpoint.of(split).sum()) for split in SPLITS},
        "metrics": found,
        "trivial": metrics.trivial(
            labels["kind"], target[endpoint.of("train")].tolist(), target[test].tolist(), n
        ),
        "left_out": endpoint.left_out,
    }
    rows = [
        {
            "subject": subject,
            "truth": target[i].item(),
            "prediction": predicted[i].item(),
            "score": round(score[i].item(), 6),
            "split": endpoint.split[i].item(),
        }
        for i, subject in enumerate(endpoint.subjects)
    ]
    return card, rows


def write(card: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], out: Path) -> None:
    """Write ``predictions.csv`` and ``metrics.json``, each in one step, the latter last."""
    out.mkdir(parents=True, exist_ok=True)
    replacement = out / ".predictions.csv.new"
    with replacement.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    replacement.replace(out / "predictions.csv")
    write_json(out / "metrics.json", dict(card))


def _line(card: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} {value:.3g} (trivial {card['trivial'][name]:.3g})" for name, value in card["metrics"].items()
    )


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bhx_model.evaluation.evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--method", choices=("probe", "attentive", "finetune"), required=True)
    add("--fusion", type=Path, required=True, help="folder of the trained fusion")
    add("--tokens", type=Path, required=True, help="index.json of the cohort's cached tokens")
    add("--labels", type=Path, required=True, help="split of the endpoint")
    add(
        "--seed", type=config.whole_number, required=True, help="of the split; also of everything random here"
    )
    add("--experiment", required=True, help="name for metrics.json")
    add(
        "--preset",
        choices=config.PRESETS,
        default="base",
        help="whose scoring: `reference` as the published code",
    )
    add("--out", type=Path, required=True, help="folder for metrics.json and predictions.csv")
    add(
        "--set",
        type=config.json_object,
        default={},
        metavar="JSON",
        help="changes to the training of a method, e.g. '{\"epochs\": 10}'",
    )
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
