"""The `sae-geometry doctor` command."""

from __future__ import annotations

import typer

from sae_geometry.cli import options as o
from sae_geometry.cli.console import print_json, say_answer, say_error
from sae_geometry.cli.lifecycle import FAILED


def doctor(as_json: o.AsJson = False) -> None:
    """Check what works on this machine and say what to fix; print versions, device, exactness and speed.

    If there is a CUDA GPU, the reference suite also runs on it. The output is Markdown to paste into an issue.
    """
    from sae_geometry.cost.doctor import diagnose

    found = diagnose()
    if as_json:
        print_json(found.to_dict())
    else:
        say_answer(found.markdown(), found.verdict)
    if not found.is_right:
        say_error("a check failed: please open an issue with the text above")
        raise typer.Exit(FAILED)
