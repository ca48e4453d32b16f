"""Implementations of a protocol have its methods and parameter names; all results of properties have `as_dict`."""

import dataclasses
import importlib
import inspect
import pkgutil
import re

import pytest

from fusedff import properties
from fusedff.network.dimenet import DimeNet
from fusedff.network.lennard_jones import LennardJones
from fusedff.potential import Model
from fusedff.properties.static.relax import RelaxationConfig
from fusedff.simulation.elasticity import CoupledStrains, Estimator, StressFluctuation
from fusedff.training import targets
from fusedff.training.phonon_target import PhononTarget
from fusedff.training.targets import StaticTarget, Target

IMPLEMENTATIONS = [
    *((Model, model) for model in (DimeNet, LennardJones)),
    *((Estimator, estimator) for estimator in (CoupledStrains, StressFluctuation)),
    *((Target, getattr(targets, name)) for name in dir(targets) if re.fullmatch(r"(?!Static)\w+Target", name)),
    (StaticTarget, PhononTarget),
]
OBSERVE = ("potential", "system", "near", "evaluation")
WEIGHTED_SUM = ("potential", "system", "near", "coefficients")


def parameters(function) -> tuple[str, ...]:
    return tuple(name for name in inspect.signature(function).parameters if name != "self")


@pytest.mark.parametrize(("protocol", "implementation"), IMPLEMENTATIONS, ids=lambda kind: kind.__name__)
def test_an_implementation_uses_the_parameter_names_of_its_protocol(protocol, implementation):
    for name, method in vars(protocol).items():
        if name.startswith("_") or not callable(method):
            continue
        found = getattr(implementation, name)
        if found is None or isinstance(found, property):  # ElasticTarget hands on what its estimator has
            continue
        assert parameters(found)[: len(parameters(method))] == parameters(method), name


@pytest.mark.parametrize("estimator", [CoupledStrains, StressFluctuation])
def test_estimators_and_targets_observe_and_contract_with_the_same_arguments(estimator):
    assert parameters(estimator.observe) == parameters(Target.observe) == OBSERVE
    assert parameters(estimator.weighted_sum) == parameters(Target.weighted_sum) == WEIGHTED_SUM


RESULTS = [
    kind
    for module in pkgutil.walk_packages(properties.__path__, "fusedff.properties.")
    for kind in vars(importlib.import_module(module.name)).values()
    if isinstance(kind, type) and dataclasses.is_dataclass(kind) and kind.__module__ == module.name
    if kind is not RelaxationConfig
    and not kind.__name__.endswith("Config")  # settings
    and not kind.__name__.startswith("_")
]


@pytest.mark.parametrize("result", RESULTS, ids=lambda kind: kind.__name__)
def test_every_result_of_a_property_gives_plain_data_by_as_dict(result):
    assert len(RESULTS) >= 15
    assert inspect.signature(result.as_dict).parameters.keys() == {"self"}
