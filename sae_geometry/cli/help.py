"""Layout of the help: commands by purpose, summaries whole, and options of the machine in a section of their own."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand, TyperGroup

GROUPS = {
    "Compare": {
        "compare": "two dictionaries: who has a partner, and how alike",
        "match": "two dictionaries one to one, optimally: PW-MCC, proven",
        "within": "how redundant one dictionary is",
        "seeds": "every pair of many runs: recurrence, consensus",
        "agreement": "do encoders confirm the partners decoders find?",
        "span": "how much of unmatched latents the other spans",
        "split": "what became of a narrow dictionary in a wide one",
        "truth": "how well a dictionary recovers known features",
        "nearest": "latents closest to a probe, a vector, a latent",
        "flow": "features through the layers of one model",
        "drift": "one run's latents through its checkpoints",
    },
    "Look": {
        "tokens": "the tokens each latent writes towards, by logit lens",
        "umap": "UMAP of one or more dictionaries, exact neighbors",
        "project": "place further runs into a saved UMAP",
        "explore": "a saved UMAP as one interactive HTML file",
    },
    "Get": {
        "inspect": "what an address holds, and how it is read",
        "fetch": "bring a checkpoint to the cache, verified",
        "runs": "the runs of a W&B project as a table",
        "demos": "the dictionaries that come with the package",
        "cache": "show or clear what has been fetched",
    },
    "Machine": {
        "estimate": "operations, memory and time beforehand",
        "doctor": "what works on this machine, and what to do",
    },
}
EXAMPLES = {
    "compare": "compare demo:local-seed0 demo:local-seed1 -o two-seeds",
    "match": "match demo:local-seed0 demo:local-seed1",
    "nearest": "nearest demo:local-seed0::latent=7 demo:local-seed1",
    "flow": "flow demo:local-seed{0,1}",
    "within": "within demo:local-seed0",
    "seeds": "seeds saes/seed*",
    "agreement": "agreement demo:local-seed0 demo:local-seed1",
    "span": "span demo:local-seed0 demo:local-seed1",
    "split": "split demo:local-narrow-seed0 demo:local-seed0",
    "drift": "drift wandb:sparsify/gpt2/RUN",
    "truth": "truth RUN features.npy",
    "tokens": "tokens demo:local-seed0",
    "umap": "umap demo:local-seed0 demo:local-seed1 --html -o map",
    "project": "project map demo:e2e-seed0",
    "explore": "explore map",
    "inspect": "inspect ./samples_400000.pt",
    "fetch": "fetch hf://org/repo/path",
    "runs": "runs sparsify/gpt2 --kind local --layer 6",
    "demos": "demos",
    "cache": "cache",
    "estimate": "estimate demo:local-seed0 demo:local-seed1 --for compare",
    "doctor": "doctor",
}
_MACHINE = {"device", "memory", "dask", "dask_load", "offline", "log_wandb", "dry_run", "latent_axis", "drop_bad"}


class Program(TyperGroup):
    """The program's help: its commands in groups, summaries not cut."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the groups of commands; one without a group is listed under "Other"."""
        known = {name for group in GROUPS.values() for name in group}
        other = {n: self.commands[n].get_short_help_str(60) for n in self.list_commands(ctx) if n not in known}
        for title, group in {**GROUPS, **({"Other": other} if other else {})}.items():
            with formatter.section(title):
                formatter.write_dl([(name, text) for name, text in group.items() if name in self.commands])


class Question(TyperCommand):
    """A command's help: arguments, its own options, and those of input and machine, then an example."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the parameters in three sections."""
        sections: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": [], "Input and machine": []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is None:
                continue
            kind = "Input and machine" if parameter.name in _MACHINE else "Options"
            sections["Arguments" if parameter.param_type_name == "argument" else kind].append(record)
        for title, rows in sections.items():
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)
