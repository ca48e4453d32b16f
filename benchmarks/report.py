"""Reports of the benchmarks in Markdown: text and tables."""

import numpy as np

from benchmarks import cells as cells_
from benchmarks import record, sides
from benchmarks.compare import Row
from benchmarks.noise import BLOCKS, Noise, distance
from benchmarks.record import table
from benchmarks.scaling import Cost
from benchmarks.snapshots import MemoryUse
from benchmarks.work import LABELS

NAMES = {"fusedff": "fusedff", "tight": "chemtrain, tight", "example": "chemtrain, example"}
VISIBLE = 64  # MiB, smallest memory that is shown as a number


def comparison(rows: list[Row], agreement: list[str], about: dict) -> str:
    """Time of one evaluation, of the first call, and memory, side by side."""
    present = [name for name in NAMES if any(name in row.first_call for row in rows)]
    peers = present[1:]

    def entries(row, names, values, show):
        return [show(values[n]) if n in values else "failed" if n in row.failed else "–" for n in names]

    def three(unit, of, show):
        head = [unit, "atoms", *(NAMES[n] for n in present)]
        return table(head, [[LABELS[r.quantity], r.n_atoms, *entries(r, present, of(r), show)] for r in rows])

    times = table(
        ["milliseconds", "atoms", *(NAMES[n] for n in present), *(f"{NAMES[n]} / fusedff" for n in peers)],
        [
            [
                LABELS[row.quantity],
                row.n_atoms,
                *entries(row, present, row.seconds, lambda s: f"{1e3 * s.median:.1f}"),
                *entries(row, peers, row.ratio, lambda s: f"{s.median:.1f} ({s.low:.1f}–{s.high:.1f})"),
            ]
            for row in rows
        ],
    )
    failures = [
        f"- {LABELS[r.quantity]}, {r.n_atoms} atoms, {NAMES[s]}: {why}" for r in rows for s, why in r.failed.items()
    ]
    versions = ", ".join(f"{name} {version}" for name, version in sides.pinned(record.PACKAGES).items())
    return f"""# fusedff and chemtrain

{record.describe(about)} chemtrain runs beside it with {versions}.

Both evaluate the same network on the same cells: {"; ".join(agreement)}. "Example" is the room for neighbours, edges
and triplets that chemtrain's titanium notebook sets, "tight" is the least that these cells need, and 2 % more. The
DiffTRe gradient is that of elastic constants and pressure, per snapshot: from the stress fluctuation of one cell in
both, or with the estimator that each takes by default, which in fusedff is four strained cells whose noise is coupled.

## Time

Medians over rounds in which the sides took turns. A ratio is the median over these pairs, with quartiles.

{times}

## First call

Tracing, compiling and one execution.

{three("seconds", lambda row: row.first_call, "{:.1f}".format)}

## Memory

Peak of one call beyond what the process held before it. An allocator reuses what it kept of earlier calls, so that
little needs cannot be told from none.

{three("MiB", lambda row: row.memory, lambda mib: f"{mib:.0f}" if mib > VISIBLE else f"< {VISIBLE}")}
""" + ("\n## What could not be measured\n\n" + "\n".join(failures) + "\n" if failures else "")


def scaling(sizes: list[Cost], replicas: list[Cost], about: dict) -> str:
    """Costs against the number of atoms and of cells."""

    def costs(of, unit, rows):
        body = [[n, f"{1e3 * cost.forces.median / n:.3g}", f"{1e3 * cost.step.median / n:.3g}"] for n, cost in rows]
        return table([of, f"energy and forces, {unit}", f"Langevin step, {unit}"], body)

    return f"""# How fusedff scales

{record.describe(about)}

{costs("atoms in the cell", "ms per atom", [(cost.n_atoms, cost) for cost in sizes])}

{costs("cells of 54 atoms", "ms per cell", [(cost.n_cells, cost) for cost in replicas])}
"""


def cells(costs: list[cells_.Cost], about: dict) -> str:
    """Costs of large cells."""
    body = []
    for c in costs:
        times = [f"{1e6 * seconds.median / c.n_atoms:.1f}" for seconds in (c.lists, c.step, c.processor)]
        body.append([c.n_atoms, c.search, *times, f"{c.memory:.0f}", f"{1024 * c.memory / c.n_atoms:.0f}"])
    head = ["atoms", "search by", "one search, µs", "Langevin step, µs", "its processor time, µs", "memory, MiB", "KiB"]
    return f"""# Large cells

{record.describe(about)} Titanium, one cell, cut-off 5 Å and
skin 2 Å, DimeNet++ with one block and 4 channels; a step holds its share of a search every {cells_.STEPS} steps. Times
and the last column are per atom, medians. Processor time is of all cores together; where others compute on the machine,
it counts rather than the clock. Memory is the peak of a process beyond what it holds after its imports, compilation
included.

{table(head, body)}
"""


def memory(uses: list[MemoryUse], about: dict) -> str:
    """Memory of a DiffTRe update."""
    body = [[use.snapshots, f"{use.update:.0f}", f"{use.stored:.1f}"] for use in uses]
    return f"""# Memory of a DiffTRe update

{record.describe(about)} Stress-fluctuation estimator, one cell of 54 atoms, network of the demo preset.

{table(["snapshots", "peak of an update, MiB", "the snapshots themselves, MiB"], body)}
"""


def noise(found: list[Noise], temperatures, about: dict) -> str:
    """CPU time of each sampler for a given standard error, relative to the first one."""
    plain = found[0]
    body = [
        [
            sampler.name,
            f"{sampler.seconds:.0f}",
            *(f"{cost:.3g}" for cost in sampler.cost),
            f"{np.mean(plain.cost / sampler.cost):.1f}",
            "" if sampler is plain else f"{distance(sampler, plain):.1f}",
        ]
        for sampler in found
    ]
    for_one = [f"CPU s for 1 GPa, {t:g} K" for t in temperatures]
    return f"""# Noise of the elastic constants per CPU second

{record.describe(about)} Model `titanium-fused`, cells of 54 atoms; steps of 2 fs, and
snapshots some 100 fs apart, where a row says nothing else.

CPU seconds of sampling until the standard error of an elastic constant is 1 GPa (root mean square over the five), how
many times fewer that is than the first row needs, and how far the constants are from those of the first row in units of
the standard error of the difference (about 1 where neither is biased). The error bars themselves, from {BLOCKS} blocks,
are known to a sixth, the seconds thus to a third.

{table(["sampler", "sampled for, CPU s", *for_one, "times faster", "distance, errors"], body)}
"""


def gpu(found: dict) -> str:
    """Results of `python -m benchmarks gpu`, stage by stage, including those that failed or were skipped."""
    about, parts = found["about"], []
    title = f"# One GPU\n\n{record.describe(about)} Card: {about['card']}."
    for stage, result in found.items():
        if not isinstance(result, dict) or stage in ("about", "stage_seconds"):
            continue
        if reason := result.get("failed") or result.get("skipped"):
            parts.append(f"## {stage}\n\nNot measured: {reason}.")
            continue
        rows = result.get("rows") or [{"": name} | row for name, row in result.items() if isinstance(row, dict)]
        single = {name: value for name, value in result.items() if isinstance(value, (int, float))}
        body = [table(list(rows[0]), [[_short(row.get(key)) for key in rows[0]] for row in rows])] if rows else []
        body += [f"- {name}: {_short(value)}" for name, value in single.items()]
        parts.append(f"## {stage}\n\n" + "\n".join(body))
    return "\n\n".join([title, *parts])


def _short(value):
    if isinstance(value, dict):  # a spread
        value = value.get("median", "")
    return f"{value:.3g}" if isinstance(value, float) else value
