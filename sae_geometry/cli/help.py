"""Help pages with commands grouped by purpose, and with input and machine options in their own section."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand, TyperGroup

from sae_geometry.cli.commands import COMMANDS

_MACHINE = {"device", "memory", "dask", "dask_load", "offline", "log_wandb", "dry_run", "latent_axis", "drop_bad"}


class Program(TyperGroup):
    """Program whose help lists its commands in groups, with untruncated summaries."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the groups of commands."""
        for title, commands in COMMANDS.items():
            with formatter.section(title):
                formatter.write_dl([(name, summary) for name, (summary, _) in commands.items()])


class Question(TyperCommand):
    """Command whose help lists input and machine options separately from its other options."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the parameters in up to three sections."""
        sections: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": [], "Input and machine": []}
        for parameter in self.get_params(ctx):
            if record := parameter.get_help_record(ctx):
                kind = "Input and machine" if parameter.name in _MACHINE else "Options"
                sections["Arguments" if parameter.param_type_name == "argument" else kind].append(record)
        for title, rows in sections.items():
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)
