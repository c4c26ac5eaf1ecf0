"""What `gfnem list` shows: everything that is registered."""

import textwrap
from typing import Any

EM_DATA = "Learn standard data by EM and its competitors: toy, craft-10, digits, mnist-5k"
"""What the suite `em-data` does."""


def suites_by_name() -> dict[str, str]:
    """Returns what each benchmark suite does, by name."""
    from benchmarks.task import tasks_of

    throughput = "Measure what rollouts and training steps cost, beside torchgfn and bare loops"
    return {
        "throughput": throughput,
        "em-data": EM_DATA,
        **{spec.name: spec.description for spec in tasks_of("bench").values()},
    }


def print_everything() -> None:
    """Prints everything that is registered."""
    import gymnasium
    from tabulate import tabulate

    import gfn_envs
    from algorithms.explorations import explorations
    from algorithms.objectives import objectives
    from algorithms.tree_policies import tree_policies
    from benchmarks.discrete_vae.methods import dvae_methods
    from benchmarks.em.methods import em_methods
    from benchmarks.grammar.methods import grammar_methods
    from benchmarks.posterior.controls import controls
    from benchmarks.posterior.metrics import metrics
    from benchmarks.task import tasks_of
    from benchmarks.tree_posterior.problem import tree_problems
    from gfn_envs.registration import load_plugins
    from lvms.code_prior import code_priors
    from lvms.grammars.built_in import built_in_grammars
    from lvms.models import models

    load_plugins()
    sections: dict[str, list[Any]] = {
        "Tasks (gfnem run TASK)": [(t.name, t.description) for t in tasks_of("run").values()],
        "Benchmark suites (gfnem bench SUITE)": list(suites_by_name().items()),
        "Latent environments (gfn_envs.make, gymnasium.make, gfnem check)": [
            _row(spec.id, spec) for spec in gfn_envs.registry.values()
        ],
        "Gymnasium environments with a model's reward (gymnasium.make)": [
            (spec.id, spec.kwargs.get("description", f"reward log p(x, z) of {spec.name}"))
            for spec in gymnasium.registry.values()
            if spec.namespace == "lvms"
        ],
    }
    catalogues = {
        "Models (lvms.models.models)": models,
        "Priors over grids of codes (lvms.code_prior.code_priors)": code_priors,
        "Objectives (algorithms.objectives.objectives)": objectives,
        "Explorations (algorithms.explorations.explorations)": explorations,
        "Policies over trees (algorithms.tree_policies.tree_policies)": tree_policies,
        "EM methods (benchmarks.em.methods.em_methods)": em_methods,
        "Discrete VAE methods (benchmarks.discrete_vae.methods.dvae_methods)": dvae_methods,
        "Built-in grammars (lvms.grammars.built_in.built_in_grammars)": built_in_grammars,
        "Grammar methods (benchmarks.grammar.methods.grammar_methods)": grammar_methods,
        "Posteriors of trees (benchmarks.tree_posterior.problem.tree_problems)": tree_problems,
        "Metrics (benchmarks.posterior.metrics.metrics)": metrics,
        "Controls without a policy (benchmarks.posterior.controls.controls)": controls,
    }
    for title, catalogue in catalogues.items():
        sections[title] = [_row(name, entry) for name, entry in catalogue.items()]
    for title, rows in sections.items():
        print(title)
        print(textwrap.indent(tabulate(rows, tablefmt="plain"), "  "), end="\n\n")


def _row(name: str, part: Any) -> tuple[str, str, str]:
    """Shows a registered part: its name, its default arguments and what it is."""
    defaults = ", ".join(f"{key}={value!r}" for key, value in part.kwargs.items())
    try:
        return name, defaults, part.description
    except (ImportError, AttributeError) as error:  # somebody else's: the others are still shown
        return name, defaults, f"(cannot be imported: {error})"
