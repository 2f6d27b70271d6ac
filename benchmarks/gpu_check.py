"""Everything that needs a GPU, in one command: python -m benchmarks.gpu_check

Runs the kernels against their twins, the conformance suite on every backend that can run on the device (torch, and
onnxruntime-gpu and TensorRT where they are installed), the throughput workloads with their roofline fractions beside
transformers' generate and continuous batching, and all backends beside each other in every precision that they declare.
Writes benchmarks/results/DEVICE-TIME.json and a page of charts beside it. With --dry-run it runs on the CPU, on a tiny
model and small workloads.

Nothing in here has been run on a GPU yet: none was at hand when it was written. The torch backend's CUDA path (device
placement, pinned copies, the profile run that sizes the cache, asynchronous forwards), ONNX Runtime's CUDA execution
provider and TensorRT have only been read, not run.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import torch
from isotoken.api.bench.engines import token_hash
from isotoken.api.bench.page import write_page
from isotoken.api.bench.roof import Model, Roof, RoofMeter
from isotoken.api.bench.run import NOTHING, Plan, run
from isotoken.api.bench.truth import TRUTH
from isotoken.api.bench.workloads import WORKLOADS, Workload, make_workload, small
from isotoken.core.capabilities import Capabilities
from isotoken.plugins.manager import Plugins

from .checks import check_float32, judge
from .engines import Isotoken, Subject, Transformers, TransformersContinuous, speed
from .make_model import ensure_model

ROOT = Path(__file__).parents[1]


def main(argv: list[str] | None = None) -> int:
    """Run all parts; a part that fails is reported and the others still run."""
    args = _parse(argv)
    parts: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
        "kernels": run_kernels,
        "conformance": run_conformance,
        "throughput": run_throughput,
        "backends": run_backends,
    }
    report: dict[str, Any] = {"environment": environment(args.device), "dry_run": args.dry_run}
    for name in args.parts:
        print(f"--- {name}", flush=True)
        start = time.perf_counter()
        try:
            report[name] = parts[name](args)
        except Exception as error:
            report[name] = {"ok": False, "error": repr(error), "traceback": traceback.format_exc()}
        report[name]["seconds"] = round(time.perf_counter() - start, 1)
        shown = {key: value for key, value in report[name].items() if key != "report"}
        print(json.dumps(shown, indent=1), flush=True)
    report["ok"] = all(report[name]["ok"] for name in args.parts)
    args.results.mkdir(parents=True, exist_ok=True)
    device = report["environment"]["device"].replace(" ", "-").replace("/", "-")
    target = args.results / f"{device}-{time.strftime('%Y%m%dT%H%M%S')}.json"
    target.write_text(json.dumps(report, indent=1))
    print(f"{'ok' if report['ok'] else 'FAILED'}: {target}")
    return 0 if report["ok"] else 1


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dry-run", action="store_true", help="on the CPU, with a tiny model")
    parser.add_argument("--size", default="", help="benchmark model; 500m, or tiny in a dry run")
    parser.add_argument("--rounds", type=int, default=0)
    parser.add_argument("--parts", nargs="+", default=["kernels", "conformance", "throughput", "backends"])
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    args = parser.parse_args(argv)
    args.device = "cpu" if args.dry_run else "cuda"
    args.size = args.size or ("tiny" if args.dry_run else "500m")
    args.rounds = args.rounds or (1 if args.dry_run else 3)
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch finds no GPU here; --dry-run runs everything on the CPU")
    return args


def environment(device: str) -> dict[str, str]:
    """Say what this was run on."""
    name = torch.cuda.get_device_name() if device == "cuda" else f"cpu {platform.machine()}"
    return {
        "device": name,
        "torch": torch.__version__,
        "cuda": str(torch.version.cuda),
        "python": platform.python_version(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def run_kernels(args: argparse.Namespace) -> dict[str, Any]:
    """Hold the kernels to their twins. Today the twins are what runs, held to numpy and to each other."""
    done = _pytest(["tests/kernels"] if args.dry_run else ["tests/kernels", "tests/backends/torch"])
    return {"ok": done.returncode == 0, "summary": _last_line(done), "triton_kernels": "none yet"}


def run_conformance(args: argparse.Namespace) -> dict[str, Any]:
    """Run the suite for each backend that declares the device."""
    plugins, results = Plugins.load(), {}
    for name in plugins.backends:
        try:
            capabilities = plugins.backends.get_factory(name)().capabilities
        except Exception as error:
            results[name] = {"ok": True, "skipped": str(error)}
            continue
        if args.device not in capabilities.devices or (args.dry_run and name == TRUTH):
            continue
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder) / "report.json"
            command = ["--pyargs", "isotoken.conformance", "--backend", name, "--device", args.device]
            command += ["-k", "test_contract"] if args.dry_run else ["--dtype", "all", "--quantization", "all"]
            done = _pytest([*command, "--conformance-report", str(report)])
            found = json.loads(report.read_text()) if report.exists() else None
        results[name] = {"ok": done.returncode == 0, "summary": _last_line(done), "report": found}
    return {"ok": bool(results) and all(result["ok"] for result in results.values()), "backends": results}


def run_throughput(args: argparse.Namespace) -> dict[str, Any]:
    """Measure W1 to W4 in turns with the peers, tokens checked first."""
    folder = ensure_model(args.size)
    share = 8 if args.dry_run else 1
    oracle = Transformers(folder, "float32", args.device)
    exact = Isotoken(folder, "float32", device=args.device, settings={"memory_fraction": 0.5})
    check_float32(exact, oracle, small(make_workload("W3", 0), 8))
    exact.close()
    ours = Isotoken(folder, device=args.device, settings={"memory_fraction": 0.5})
    peers: list[Subject] = [Transformers(folder, device=args.device)]
    continuous = TransformersContinuous(folder, device=args.device)
    peers.append(continuous)
    results: dict[str, Any] = {"ok": True, "model": args.size}
    model = Model.of(folder)
    with RoofMeter(model.num_bytes, ["bfloat16"], args.device, torch.get_num_threads()) as meter:
        roof = Roof.best([meter.measure() for _ in range(3)])
    tflops = {dtype: rate / 1e12 for dtype, rate in roof.flops_per_second.items()}
    results["roof"] = {"gb_per_second": roof.bytes_per_second / 1e9, "tflops": tflops}
    try:
        for name in WORKLOADS:
            workloads = [small(make_workload(name, index), share) for index in range(args.rounds + 1)]
            results[name] = _measure(workloads, ours, peers, oracle, model, roof)
            results["ok"] &= results[name]["tokens_ok"]
    finally:
        continuous.close()
    return results


def _measure(
    workloads: list[Workload], ours: Isotoken, peers: list[Subject], oracle: Transformers, model: Model, roof: Roof
) -> dict[str, Any]:
    """Run the workloads on everyone in turn; the first one warms up and is not counted."""
    rates: dict[str, list[float]] = {subject.name: [] for subject in (ours, *peers)}
    for workload in workloads:
        for subject in (*peers, ours):
            run = subject.run(workload)
            rates[subject.name].append(speed(workload, run))
    verdict = judge(oracle, workloads[-1], run, "bfloat16")
    best = sorted(rates[ours.name][1:])[len(workloads[1:]) // 2]
    possible = model.roof_rate(workloads[-1], roof, "bfloat16")
    return {
        "tok_s": {name: [round(rate, 1) for rate in measured[1:]] for name, measured in rates.items()},
        "fraction_of_roof": None if possible is None else best / possible,
        "tokens": token_hash(run),
        "tokens_ok": verdict.ok,
        "positions": verdict.positions,
        "near_ties": verdict.near_ties,
        "near_ties_otherwise": verdict.differing,
    }


def run_backends(args: argparse.Namespace) -> dict[str, Any]:
    """Put every backend that can run on the device beside the others, in its fastest dtype and all quantisations."""
    plugins = Plugins.load()
    can = {name: declared for name in plugins.backends if (declared := _declared(plugins, name, args)) is not None}
    plan = Plan(
        model=f"random-{args.size}",
        backends=sorted(can, key=lambda name: (name != "torch", name)),
        dtypes=[f"{name}:{_fastest(declared)}" for name, declared in can.items()],
        quantizations=[
            f"{name}:{kind}" for name, declared in can.items() for kind in ("none", *sorted(declared.quantizations))
        ],
        concurrencies=(1, 4) if args.dry_run else (1, 8, 32),
        rounds=args.rounds,
        share=8 if args.dry_run else 1,
        device=args.device,
        threads=torch.get_num_threads(),
        command="python -m benchmarks.gpu_check",
    )
    report = run(plan, plugins, tell=lambda text: print(text, flush=True))
    page = args.results / f"{args.device}-{time.strftime('%Y%m%dT%H%M%S')}.html"
    write_page(report, page)
    found: dict[str, Any] = json.loads(msgspec.json.encode(report))
    return {"ok": report.ok, "page": page.name, "report": found}


def _declared(plugins: Plugins, name: str, args: argparse.Namespace) -> Capabilities | None:
    """What a backend declares, or None where it cannot run on the device, or has no model to run."""
    try:
        capabilities: Capabilities = plugins.backends.get_factory(name)().capabilities
    except Exception as error:
        print(f"{name}: {error}")
        return None
    return capabilities if args.device in capabilities.devices and name not in (TRUTH, NOTHING) else None


def _fastest(declared: Capabilities) -> str:
    return next(dtype for dtype in ("bfloat16", "float16", "float32") if dtype in declared.dtypes)


def _pytest(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *filter(None, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stdout[-4000:], done.stderr[-2000:], sep="\n")
    return done


def _last_line(done: subprocess.CompletedProcess[str]) -> str:
    return (done.stdout.strip().splitlines() or [""])[-1]


if __name__ == "__main__":
    raise SystemExit(main())
