"""Conversion of fusedff's DimeNet++ parameters to chemtrain's Haiku tree, so that both evaluate the same function.

chemtrain has lengths in nm and normalizes its radial basis as sqrt(2 / r_c) sin(n pi x) / r, fusedff as
sqrt(2) sin(n pi x) / x with x = r / r_c. The weights that multiply the basis are scaled by the ratio r_c^(3/2).
"""

import numpy as np

from fusedff.network.dimenet import DimeNet

PREFIX = "DimeNetPP/~/"


def to_chemtrain(params: dict, model: DimeNet) -> dict:
    """chemtrain's tree {module: {leaf: array}} from `params` of `model`; every leaf is used exactly once."""
    loose = params["~"]
    radial = (model.cutoff / 10) ** 1.5
    tree = {
        f"{PREFIX}BesselRadial": {"RBF_Frequencies": loose["frequencies"]},
        f"{PREFIX}Embedding": {"Embedding_vect": loose["species"]},
    }

    def put(name, w, b=None):
        tree[f"{PREFIX}{name}/~/linear"] = {"w": w} if b is None else {"w": w, "b": b}

    def copy(name, module):
        put(name, **params[module])

    receiver, sender, mix = (params[f"embedding_{part}"] for part in ("receiver", "sender", "mix"))
    put("Embedding/~/RBF_Dense", radial * params["embedding_distance"]["w"])
    put("Embedding/~/Concat_Dense", np.concatenate([receiver["w"], sender["w"], mix["w"]]), receiver["b"])
    for block in range(model.blocks):
        ours, name = f"interaction_{block}", f"{_numbered('Interaction', block)}/~/"
        kj, ji = (dict(zip("wb", halves, strict=True)) for halves in _halves(params[f"{ours}_kj_ji"]))
        put(f"{name}Dense_kj", **kj)
        put(f"{name}Dense_ji", **ji)
        put(f"{name}rbf1", radial * loose[f"{ours}_radial_down"])
        put(f"{name}rbf2", loose[f"{ours}_radial_up"])
        put(f"{name}sbf1", loose[f"{ours}_spherical_down"])
        put(f"{name}sbf2", loose[f"{ours}_spherical_up"])
        copy(f"{name}Downprojection", f"{ours}_down")
        copy(f"{name}Upprojection", f"{ours}_up")
        copy(f"{name}FinalBeforeSkip", f"{ours}_skip")
        before = [f"{ours}_before_{layer}" for layer in range(model.layers_before_skip)]
        after = [f"{ours}_after_{layer}" for layer in range(model.layers_after_skip)]
        for number, module in enumerate(before + after):
            layer = f"{name}{_numbered('ResLayer', number)}/~/"
            copy(f"{layer}ResidualSubLayer", f"{module}_a")
            copy(f"{layer}ResidualSubLayer_1", f"{module}_b")
    for block in range(model.blocks + 1):
        ours, name = f"output_{block - 1}" if block else "output", f"{_numbered('Output', block)}/~/"
        put(f"{name}RBF_Dense", radial * params[f"{ours}_radial"]["w"])
        copy(f"{name}Upprojection", f"{ours}_up")
        copy(f"{name}Final_output", f"{ours}_final")
        for layer in range(model.output_layers):
            copy(f"{name}{_numbered('Dense_Series', layer)}", f"{ours}_{layer}")
    return {module: {leaf: np.asarray(x) for leaf, x in leaves.items()} for module, leaves in tree.items()}


def _numbered(name, n):
    """Haiku's name of the n-th module called `name`."""
    return f"{name}_{n}" if n else name


def _halves(layer):
    """The two layers that fusedff evaluates as one: ((w, b) of k -> j, (w, b) of j -> i)."""
    return zip(*(np.split(layer[leaf], 2, axis=-1) for leaf in "wb"), strict=True)
