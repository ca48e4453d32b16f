"""`python -m benchmarks`: time fusedff against chemtrain; or one of the other measurements."""

import argparse
from collections.abc import Iterator
from pathlib import Path

import fusedff
from benchmarks import (
    cells,
    committee,
    compare,
    figures,
    gpu,
    independent,
    learning,
    liquids,
    next_measurement,
    noise,
    record,
    report,
    scaling,
    starts,
    transition,
)
from benchmarks import snapshots as memory
from fusedff import results


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("what", nargs="?", default="compare", choices=[*MEASUREMENTS, "gpu"])
    parser.add_argument("--quick", action="store_true", help="compare three quantities at one size, in a few minutes")
    parser.add_argument("--all", action="store_true", help="compare everything at both sizes, in hours")
    parser.add_argument("--seconds", type=float, default=450, help="gpu: end after so long whatever happens")
    parser.add_argument("--into", type=Path, default=record.RESULTS, help="where results go")
    parser.add_argument("--dry", action="store_true", help="cells, independent, gpu: tiny sizes, to try it")
    parser.add_argument("--model", default="fused", choices=results.TITLES, help="independent: of those that ship")
    parser.add_argument("--stages", nargs="*", help=f"gpu: of {', '.join(gpu.STAGES)} (default: all)")
    options = parser.parse_args()
    fusedff.setup()
    if options.what == "gpu":
        found = gpu.run(options.seconds, options.into, options.dry, options.stages)
        (options.into / "gpu.md").write_text(report.gpu(record.to_dicts(found)) + "\n")
        return
    about, text = record.circumstances(), ""
    # written after every step, so that an interruption loses little
    for name, text, data, drawn in MEASUREMENTS[options.what](options, about):
        record.write(name, text, data, options.into)
        for title, figure in drawn.items():
            record.draw(title, figure, options.into)
    print(text)


# Results so far of a measurement: name of the result, text, data, figures by name.
Found = Iterator[tuple[str, str, dict, dict]]


def _compare(options, about) -> Found:
    name = "quick" if options.quick else "all" if options.all else "comparison"
    tasks = {"quick": compare.QUICK, "all": compare.ALL, "comparison": compare.DEFAULT}[name]
    for rows, agreement in compare.run(tasks):
        text, data = report.comparison(rows, agreement, about), about | {"agreement": agreement, "rows": rows}
        yield name, text, data, {name: figures.comparison(rows)}


def _scaling(options, about) -> Found:
    sizes, replicas = scaling.run()
    drawn = {"scaling-atoms": figures.atoms(sizes), "scaling-replicas": figures.replicas(replicas)}
    yield "scaling", report.scaling(sizes, replicas, about), about | {"sizes": sizes, "replicas": replicas}, drawn


def _cells(options, about) -> Found:
    costs = []
    for cost in cells.run(cells.DRY if options.dry else cells.SIZES):
        costs.append(cost)
        data = about | {"steps_per_search": cells.STEPS, "costs": costs}
        yield "cells", report.cells(costs, about), data, {"cells": figures.cells(costs)}


def _memory(options, about) -> Found:
    needs = memory.run()
    yield "memory", report.memory(needs, about), about | {"needs": needs}, {"memory": figures.memory(needs)}


def _noise(options, about) -> Found:
    found = []
    for result in noise.run():
        found.append(result)
        data = about | {"temperatures_K": noise.TEMPERATURES, "samplers": found}
        yield "noise", report.noise(found, noise.TEMPERATURES, about), data, {}


def _independent(options, about) -> Found:
    settings, name = independent.DRY if options.dry else independent.SETTINGS, independent.name_of(options.model)
    for found in independent.run(options.model, options.into, settings):
        yield name, independent.text(found, about), found | {"about": about}, {name: figures.independent(found)}


def _resumable(name: str, module, draw=lambda found: {}):
    """Measurement of a module whose `run` continues from the result that an earlier call stored under this name."""

    def measure(options, about) -> Found:
        for found in module.run(options.into):
            yield name, module.text(found, about), found | {"about": about}, draw(found)

    return measure


MEASUREMENTS = {
    "compare": _compare, "scaling": _scaling, "cells": _cells, "memory": _memory, "noise": _noise,
    "independent": _independent,
    "learning": _resumable("learning", learning, lambda found: {"learning": figures.learning(found["curve"])}),
    "starts": _resumable("starts", starts, lambda found: {"starts": figures.starts(found["models"])}),
    "committee": _resumable(
        "committee", committee, lambda found: {"committee": figures.committee(found["members"])}
    ),
    "transition": _resumable("transition", transition),
    "liquids": _resumable("liquids", liquids, figures.liquids),
    "next_measurement": _resumable(
        "next_measurement", next_measurement, lambda found: {"next_measurement": figures.next_measurement(found)}
    ),
}  # fmt: skip


if __name__ == "__main__":
    main()
