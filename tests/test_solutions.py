"""Solutions of the exercises run from top to bottom, with the results that their text states."""

import math

import pytest
from papermilled import SOLUTIONS, execute, execute_all, kernels, numbers

from fusedff.study import run_folder


@pytest.fixture(scope="module")
def solved(tmp_path_factory, compile_once):
    """The records of all solutions. Those of 06 and 07 judge what ships, in place of what their notebooks would leave.

    Workers take this file after test_notebooks.py, whose compiled code is found by then.
    """
    root = tmp_path_factory.mktemp("runs")
    run, shipped = run_folder.folder("smoke", root), run_folder.shipped_record()
    run.write("summary.json", {"models": shipped["models"]})
    run.write("temperatures.json", shipped["temperatures"])
    with kernels() as kernel:
        execute_all(SOLUTIONS, lambda number: execute(SOLUTIONS[number], root, root / "executed", kernel), needs={})
    return {number: run.read(f"solutions/{number}.json") for number in SOLUTIONS}


@pytest.mark.parametrize("number", SOLUTIONS)
def test_solutions_of_the_exercises_run_and_leave_finite_numbers(solved, number):
    assert numbers(solved[number])
    assert all(math.isfinite(x) for x in numbers(solved[number]))


def test_solutions_show_what_they_say(solved):
    """Of those whose numbers mean something also with `smoke`."""
    fives = solved["00"]["bulk_modulus_GPa"]["fives"]
    assert 0.3 < max(fives) - min(fives) < 3
    assert 0 < solved["00"]["expansion_per_K"]["c"] < solved["00"]["expansion_per_K"]["a"] < 1.2e-5
    assert 50 < solved["00"]["c_shortest_K"] < 250
    assert solved["00"]["refused"]
    bits = solved["01"]
    assert bits["bottom"]["64"] < 1e-4 * bits["bottom"]["32"]
    assert bits["best_step_A"]["64"] < bits["best_step_A"]["32"]
    assert max(bits["mirror_change"].values()) < 1e-10
    for of_energy, of_force in bits["powers"].values():  # 3 and 2, up to the next power over a finite range
        assert of_energy == pytest.approx(3, abs=0.2)
        assert of_force == pytest.approx(2, abs=0.2)
    assert bits["ratio"] == pytest.approx(14, rel=0.05)
    assert solved["02"]["resumed_differs_by"] == 0
    assert solved["03"]["exploded"]
    noise = solved["03"]["mean_error_bar_GPa"]
    smallest, middle, _ = (noise[strain] for strain in sorted(noise, key=float))
    assert smallest == pytest.approx(middle, rel=0.2)  # proportional to the strain, and divided by it
    assert solved["03"]["mean_error_bar_of_different_GPa"] > 3 * smallest
    too_soft, soft = (solved["04"]["typical_error"][share] for share in ("0.25", "0.5"))
    assert soft[-1] < 0.05 < too_soft[-1]  # with 30 000 snapshots: weights of infinite variance do not average out
    fewer = solved["04"]["simulations"]
    assert fewer["Gauss-Newton"] < fewer["Adam"]
    for rows, error in solved["05"]["sketch_error"].items():
        assert error == pytest.approx((2 / int(rows)) ** 0.5, rel=0.3)
    assert solved["05"]["moves_most"] == "C13@923K"
    assert solved["05"]["above_one_percent_K"] == {"C13": 298, "C12": 323, "C11": 573, "C33": 923}
    assert solved["05"]["moved_percent"]["C44@923K"] == pytest.approx(0, abs=1e-6)
    assert 0.03 < solved["07"]["compressed_by"] < 0.06  # 5 GPa over a bulk modulus of 110 GPa
    assert 0 < solved["07"]["parabola_percent"] < 1
    assert not solved["08"]["bcc_stable"]
    assert 0.2 < solved["08"]["gruneisen"] < 2.5  # of a cell of 16 atoms
    assert solved["08"]["copper"]["bcc_above_fcc_meV"] > 0
    assert solved["09"]["refused"]
    assert solved["09"]["C44_difference_GPa"] < 1e-3  # heating a cubic crystal gives no shear stress
    relaxed, measured = solved["10"]["relaxed_A"], solved["10"]["measured_A"]
    for axis in "ac":
        off = {model: abs(edges[axis] - measured[axis]) for model, edges in relaxed.items()}
        assert off["titanium-fused"] < off["titanium-dft"]
