"""`python -m benchmarks`: time fusedff against chemtrain; or one of the other measurements."""

import argparse
from pathlib import Path

import fusedff
from benchmarks import (
    cells,
    compare,
    figures,
    gpu,
    independent,
    learning,
    noise,
    record,
    report,
    scaling,
    snapshots,
    starts,
)
from fusedff import results

WHAT = ("compare", "scaling", "cells", "memory", "noise", "independent", "learning", "starts", "gpu")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("what", nargs="?", default="compare", choices=WHAT)
    parser.add_argument("--quick", action="store_true", help="compare three quantities at one size, in a few minutes")
    parser.add_argument("--all", action="store_true", help="compare everything at both sizes, in hours")
    parser.add_argument("--seconds", type=float, default=450, help="gpu: end after so long whatever happens")
    parser.add_argument("--into", type=Path, default=record.RESULTS, help="where results go (not of all measurements)")
    parser.add_argument("--dry", action="store_true", help="cells, independent, gpu: tiny sizes, to try it")
    parser.add_argument("--model", default="fused", choices=results.TITLES, help="independent: of those that ship")
    parser.add_argument("--stages", nargs="*", help=f"gpu: of {', '.join(gpu.STAGES)} (default: all)")
    options = parser.parse_args()
    fusedff.setup()
    if options.what == "gpu":
        found = gpu.run(options.seconds, options.into, options.dry, options.stages)
        (options.into / "gpu.md").write_text(report.gpu(record.plain(found)) + "\n")
        return
    about = record.circumstances()
    if options.what == "compare":
        name = "quick" if options.quick else "all" if options.all else "comparison"
        tasks = {"quick": compare.QUICK, "all": compare.ALL, "comparison": compare.DEFAULT}[name]
        for rows, agreement in compare.run(tasks):  # written after every row, so that an interruption loses little
            text = report.comparison(rows, agreement, about)
            record.write(name, text, about | {"agreement": agreement, "rows": rows})
            record.draw(name, figures.comparison(rows))
        print(text)
    elif options.what == "scaling":
        sizes, replicas = scaling.run()
        text = report.scaling(sizes, replicas, about)
        record.write("scaling", text, about | {"sizes": sizes, "replicas": replicas})
        print(text)
        record.draw("scaling-atoms", figures.atoms(sizes))
        record.draw("scaling-replicas", figures.replicas(replicas))
    elif options.what == "cells":
        measured = []
        for cost in cells.run(cells.DRY if options.dry else cells.SIZES):
            measured.append(cost)
            text = report.cells(measured, about)
            record.write("cells", text, about | {"steps_per_search": cells.STEPS, "costs": measured}, options.into)
            record.draw("cells", figures.cells(measured), options.into)
        print(text)
    elif options.what == "noise":
        found = []
        for result in noise.run():
            found.append(result)
            text = report.noise(found, noise.TEMPERATURES, about)
            record.write("noise", text, about | {"temperatures_K": noise.TEMPERATURES, "samplers": found})
        print(text)
    elif options.what == "independent":
        settings = independent.DRY if options.dry else independent.JUDGE
        for judged in independent.run(options.model, options.into, settings):
            text = independent.text(judged, about)
            record.write(independent.name_of(options.model), text, judged | {"about": about}, options.into)
        print(text)
    elif options.what == "starts":
        for compared in starts.run(options.into):
            text = starts.text(compared, about)
            record.write("starts", text, compared | {"about": about}, options.into)
            record.draw("starts", figures.starts(compared["models"]), options.into)
        print(text)
    elif options.what == "learning":
        for curve in learning.run(options.into):
            text = learning.text(curve, about)
            record.write("learning", text, curve | {"about": about}, options.into)
            record.draw("learning", figures.learning(curve["curve"]), options.into)
        print(text)
    else:
        needs = snapshots.run()
        text = report.memory(needs, about)
        record.write("memory", text, about | {"needs": needs})
        print(text)
        record.draw("memory", figures.memory(needs))


if __name__ == "__main__":
    main()
