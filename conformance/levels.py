"""Levels of agreement between backends, L0 to L3, and the certificates behind them: `isotoken conformance levels`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from ..core.checkpoint import Checkpoint
from ..core.interfaces import ModelRunner
from ..plugins.manager import Plugins
from . import SUITE_VERSION
from .arranged import Arranged, arrange
from .certificate import Evidence, against_each_other, against_oracle, certify
from .controls import CONTROLS
from .forced import Float32, force
from .oracle import Trace
from .same_logits import Hand, agree
from .sides import label, load
from .subjects import Subject
from .targets import QUANTIZATIONS, ROUTING_BOUNDS, Precision, Target

_TOGETHER = 4  # sequences that are forced at once
_FLOAT32 = Precision("float32")

Pair = tuple[Target, Target]
Told = Callable[[str], None]


@dataclass(slots=True)
class Pile:
    """Evidence as it comes in, by family of subjects."""

    targets: dict[tuple[str, Target], list[Evidence]] = field(default_factory=dict)
    pairs: dict[tuple[str, Pair], list[Evidence]] = field(default_factory=dict)
    controls: dict[tuple[str, str], list[Evidence]] = field(default_factory=dict)


def level_of(pair: Pair) -> str:
    """L2 where both are float32 or wider with weights as they are, else L3."""
    return "L2" if all(target.exact for target in pair) else "L3"


def same_weights(pair: Pair) -> bool:
    """Whether a bound on the difference can be stated: quantised weights are those of another model."""
    return pair[0].quantization == pair[1].quantization


def measure(
    targets: Sequence[Target], pairs: Sequence[Pair], subjects: Sequence[Subject], plugins: Plugins, tell: Told
) -> dict[str, Any]:
    """Force every target through every subject and certify what comes out, as JSON values."""
    pile = Pile()
    for subject in subjects:
        tell(f"{subject.name}: {sum(map(len, subject.sequences))} tokens")
        for tokens, traces, got in _forced(subject, targets, plugins):
            _gather(pile, subject, pairs, traces, got)
            _control(pile, subject, list(tokens), traces[None])
    certificates = {
        "targets": [
            {"target": label(t), "subject": family}
            | certify(parts, t.precision.bound, within=t.precision.tie).as_json()
            for (family, t), parts in pile.targets.items()
        ],
        "pairs": [
            {"pair": [label(t) for t in pair], "subject": family, "level": level_of(pair)} | _certify(pair, parts)
            for (family, pair), parts in pile.pairs.items()
        ],
        "controls": [
            {"control": name, "does": _sentence(name), "subject": family, "caught": not certificate.holds}
            | certificate.as_json()
            for (family, name), parts in pile.controls.items()
            for certificate in [certify(parts, _FLOAT32.bound)]
        ],
    }
    return certificates | {"subjects": _described(subjects)}


def _forced(
    subject: Subject, targets: Sequence[Target], plugins: Plugins
) -> Iterator[tuple[tuple[int, ...], dict[str | None, Trace], dict[Target, Float32]]]:
    """Each sequence with the oracle's answers by quantisation (None: weights as they are), and each target's logits."""
    oracles = {q: subject.oracle(q) for q in {None, *(target.quantization for target in targets)}}
    longest = max(map(len, subject.sequences))
    with ExitStack() as stack:
        runners = {t: _open(t, subject.folder, longest, plugins, stack) for t in targets}
        for start in range(0, len(subject.sequences), _TOGETHER):
            some = subject.sequences[start : start + _TOGETHER]
            logits = {t: force(*runners[t], some) for t in targets}
            for index, tokens in enumerate(some):
                traces = {q: oracle.trace(list(tokens)) for q, oracle in oracles.items()}
                yield tokens, traces, {t: many[index] for t, many in logits.items()}


def _open(target: Target, folder: Path, longest: int, plugins: Plugins, stack: ExitStack) -> tuple[ModelRunner, Any]:
    backend, runner = load(
        target,
        plugins,
        Checkpoint.open(folder),
        max_model_len=longest,
        max_num_seqs=_TOGETHER,
        max_num_batched_tokens=512,
        max_num_logits=512,
        num_blocks=_TOGETHER * -(-longest // 16),
    )
    stack.callback(runner.close)
    return runner, backend.capabilities


def _gather(
    pile: Pile,
    subject: Subject,
    pairs: Sequence[Pair],
    traces: dict[str | None, Trace],
    got: dict[Target, Float32],
) -> None:
    for target, logits in got.items():
        seen = against_oracle(traces[target.quantization], logits, target.precision.routing_bound)
        pile.targets.setdefault((subject.family, target), []).append(seen)
    for pair in pairs:
        one, other = pair
        routing_bound = max(target.precision.routing_bound for target in pair)
        seen = against_each_other(traces[one.quantization], got[one], got[other], routing_bound)
        pile.pairs.setdefault((subject.family, pair), []).append(seen)


def _control(pile: Pile, subject: Subject, tokens: list[int], trace: Trace) -> None:
    for name, control in CONTROLS.items():
        lies = control(subject, tokens, trace.logits).astype(np.float32)
        seen = against_oracle(trace, lies, ROUTING_BOUNDS["float32"])
        pile.controls.setdefault((subject.family, name), []).append(seen)


def _certify(pair: Pair, parts: Sequence[Evidence]) -> dict[str, Any]:
    bound = sum(target.precision.bound for target in pair) if same_weights(pair) else None
    return certify(parts, bound, within=max(target.precision.tie for target in pair)).as_json()


def _sentence(control: str) -> str:
    return (CONTROLS[control].__doc__ or "").splitlines()[0]


def _described(subjects: Sequence[Subject]) -> list[dict[str, Any]]:
    families: dict[str, list[Subject]] = {}
    for subject in subjects:
        families.setdefault(subject.family, []).append(subject)
    return [
        {
            "subject": family,
            "models": {s.name: Checkpoint.open(s.folder).content_hash()[:16] for s in members},
            "sequences": sum(len(s.sequences) for s in members),
            "tokens": sum(len(tokens) for s in members for tokens in s.sequences),
        }
        for family, members in families.items()
    ]


def level_0(targets: Sequence[Target], subject: Subject, plugins: Plugins) -> list[dict[str, Any]]:
    """Let the samplers of all targets draw from the same logits: the oracle's."""
    with ExitStack() as stack:
        runners = [_open(t, subject.folder, max(map(len, subject.sequences)), plugins, stack)[0] for t in targets]
        logits = np.concatenate([subject.oracle(None).trace(list(tokens)).logits for tokens in subject.sequences])
        found = agree([Hand(runner) for runner in runners], logits)
    return [{"target": label(t), "holds": not a.wrong} | asdict(a) for t, a in zip(targets, found, strict=True)]


def level_1(targets: Sequence[Target], folder: Path, plugins: Plugins, tell: Told) -> list[dict[str, Any]]:
    """Serve the same requests in several arrangements on each target; with them the goldens, for level 2."""
    found = []
    for target in targets:
        tell(f"{label(target)}: the same requests in several arrangements")
        found.append({"target": label(target)} | _arranged(arrange(target, plugins, folder)))
    return found


def _arranged(arranged: Arranged) -> dict[str, Any]:
    tally = arranged.tally
    return {
        "holds": arranged.holds,
        "tokens": arranged.tokens,
        "goldens": arranged.goldens,
        "bitwise": arranged.bitwise,
        "differing": arranged.differing,
        "absent": arranged.absent,
        "near_ties": tally.near_ties,
        "flips": tally.flips,
        "wrong": arranged.wrong,
    }


def run(
    targets: Sequence[Target], pairs: Sequence[Pair], subjects: Sequence[Subject], plugins: Plugins, folder: Path,
    tell: Told,
) -> dict[str, Any]:  # fmt: skip
    """All levels for these targets and pairs, as JSON values; `holds` says whether nothing is amiss."""
    report: dict[str, Any] = {"suite_version": SUITE_VERSION}
    report["L0"] = level_0(targets, subjects[0], plugins)
    report["L1"] = level_1(targets, folder, plugins, tell)
    report |= measure(targets, pairs, subjects, plugins, tell)
    report["holds"] = not failures(report)
    return report


def failures(report: dict[str, Any]) -> list[str]:
    """What is amiss, a line each; nothing else decides whether the levels hold."""
    lines = [f"L0 {entry['target']}: {entry['wrong']} draws differ" for entry in report["L0"] if not entry["holds"]]
    for entry in report["L1"]:
        lines += [f"L1 {entry['target']}: {text}" for text in entry["wrong"]]
        if not entry["goldens"] and _precision(entry["target"]).exact:
            lines.append(f"L2 {entry['target']}: goldens differ")
        if entry["bitwise"] and any(entry["differing"].values()):
            lines.append(f"L1 {entry['target']}: requests differ by arrangement, batch_invariant is declared")
    for entry in (*report["targets"], *report["pairs"]):
        name = entry.get("target") or " and ".join(entry["pair"])
        if entry["wrong"] or entry["beyond"]:
            lines.append(
                f"{name} on {entry['subject']}: {entry['wrong']} decided positions differ, "
                f"{entry['beyond']} lie beyond the bound ({entry['max_error']} > {entry['bound']})"
            )
    for entry in report["targets"]:
        if entry["decided"] < _precision(entry["target"]).least_decided * entry["tokens"]:
            lines.append(f"{entry['target']} on {entry['subject']}: only {entry['decided']} positions are decided")
    for control in report["controls"]:
        if not control["caught"]:
            lines.append(f"the negative control {control['control']} on {control['subject']} was not caught")
    return lines


def _precision(target: str) -> Precision:
    """Of a target as `label` writes it, whatever its device."""
    _, dtype, *more = target.split()
    return Precision(dtype, next((word for word in more if word in QUANTIZATIONS), None))


def all_pairs(targets: Sequence[Target]) -> list[Pair]:
    """Every two targets; of two with different weights, the unquantised one first."""
    return [
        (b, a) if a.quantization and not b.quantization else (a, b) for a, b in combinations(dict.fromkeys(targets), 2)
    ]
