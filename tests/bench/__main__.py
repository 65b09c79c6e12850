"""`make bench`: what genimg costs over doing the same by hand, and which demands that meets.

    python tests/bench [--only NAME] [--quick] [--threads N] [-o runs/bench.json]

Every ratio is the median of paired measurements that alternate in this very run; absolute figures
belong to the machine that is named with them. Use a machine that does nothing else. Exits with 1
where a demand is missed. --quick tries that everything runs; its figures mean nothing.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import bench_augmenting
import bench_autoscaling
import bench_engine
import bench_files
import bench_judging
import bench_large
import bench_loop
import bench_memory
import bench_offline
import bench_order
import bench_parquet
import bench_ray
import bench_restoring
import bench_scenes
import bench_serving
import bench_tune
import torch
from measuring import Row
from rich.console import Console
from rich.table import Table

from jobs.runs.recorder import commit

BENCHMARKS: dict[str, Callable[[bool], list[Row]]] = {
    "scenes": bench_scenes.measure,
    "loop": bench_loop.measure,
    "restoring": bench_restoring.measure,
    "augmenting": bench_augmenting.measure,
    "order": bench_order.measure,
    "parquet": bench_parquet.measure,
    "engine": bench_engine.measure,
    "judging": bench_judging.measure,
    "ray": bench_ray.measure,
    "serving": bench_serving.measure,
    "autoscaling": bench_autoscaling.measure,
    "large": bench_large.measure,
    "files": bench_files.measure,
    "offline": bench_offline.measure,
    "tune": bench_tune.measure,
    "memory": bench_memory.measure,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests/bench", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", action="append", choices=BENCHMARKS, help="may be repeated")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does everything run?")
    parser.add_argument("--threads", type=int, default=cores(), help="default: one a core")
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/bench.json"))
    options = parser.parse_args()

    torch.set_num_threads(options.threads)
    about = machine()  # before we load it ourselves
    console = Console(highlight=False)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    for name in options.only or BENCHMARKS:
        started = time.perf_counter()
        found = BENCHMARKS[name](options.quick)
        took = time.perf_counter() - started
        Console(stderr=True).print(f"{name}: measured in {took:.0f} s", style="dim")
        console.print(table(found))
        rows += found  # told and kept at once: all of it takes more than an hour
        result = {"machine": about, "quick": options.quick, "rows": [*map(in_full, rows)]}
        options.output.write_text(json.dumps(result, indent=2) + "\n")
    console.print("  ".join(f"{key} {value}" for key, value in about.items()), style="dim")

    if missed := [row.name for row in rows if row.passed is False]:
        console.print(f"missed: {', '.join(missed)}", style="bold red")
        sys.exit(1)


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    return {
        "cpu": cpu_model(),
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 1),  # above 0.5 somebody else was computing
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "ray": importlib.metadata.version("ray"),
        "commit": commit(),
    }


def cpu_model() -> str:
    place = Path("/proc/cpuinfo")
    lines = place.read_text().splitlines() if place.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor()


def table(rows: list[Row]) -> Table:
    result = Table("", "ours", "baseline", "ratio (lowest to highest)", "demanded", "")
    for row in rows:
        demand = [f"at least {row.at_least:g}"] if row.at_least is not None else []
        demand += [f"at most {row.at_most:g}"] if row.at_most is not None else []
        spread = f" ({min(row.ratios):.2f} to {max(row.ratios):.2f})" if row.ratios else ""
        result.add_row(
            f"{row.name}, {row.unit}\n[dim]{row.note}[/]",
            shown(row.ours),
            "" if row.baseline is None else shown(row.baseline),
            "" if row.ratio is None else f"{row.ratio:.3f}{spread}",
            " ".join(demand),
            {None: "", True: "[green]met[/]", False: "[bold red]missed[/]"}[row.passed],
        )
    return result


def shown(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def in_full(row: Row) -> dict[str, Any]:
    return asdict(row) | {"ratio": row.ratio, "passed": row.passed}


if __name__ == "__main__":
    main()
