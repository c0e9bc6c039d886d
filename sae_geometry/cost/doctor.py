"""Diagnose this machine: its software and device, and the exactness and rate of the sweep."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from sae_geometry.cost.rates import Rates, measure_rates
from sae_geometry.embedding.embedding import choose_backend
from sae_geometry.io.formatting import counted
from sae_geometry.io.frozen import freeze
from sae_geometry.kernels.selfcheck import run_suite
from sae_geometry.kernels.sweep import cpu_threads
from sae_geometry.kernels.types import ScreenName
from sae_geometry.results.store import software

_ON_CPU: tuple[ScreenName, ...] = ("cpu", "int8", "torch")
_ON_CUDA: tuple[ScreenName, ...] = ("torch", "fp16", "tf32")
_FUSED: tuple[ScreenName, ...] = ("triton", "triton-fp16", "triton-tf32")
_EXTRAS = {"interactive": "plotly", "dask": "distributed"}
_EXTRAS_ON_CUDA = {"cu13": "cuml"}
_CUDA_TORCH = "install a build of PyTorch with CUDA (pytorch.org/get-started)"


@dataclass(frozen=True)
class Diagnosis:
    """Diagnosis of a machine: its software, its device, and the exactness and rates of its sweeps.

    Attributes:
        sections: mappings of strings named "software", "extras", "device", "back ends" and "checks". An extra is
            "installed" or the command that installs it. A check is "exact" if a screen gives the same partners and
            scores as the dense definition, bit for bit, in every case of the reference suite, is "not here" if it
            cannot run, and begins with "WRONG" if it differs.
        rates: rates of the sweep on the best device.
    """

    sections: Mapping[str, Mapping[str, str]]
    rates: Rates

    def __post_init__(self) -> None:
        freeze(self)

    @property
    def is_right(self) -> bool:
        """Return whether all checks passed."""
        return not any(text.startswith("WRONG") for text in self.sections["checks"].values())

    @property
    def verdict(self) -> str:
        """Return one line that says what works on this machine and what to do."""
        checks, device = self.sections["checks"], self.sections["device"]
        wrong = [name for name, text in checks.items() if text.startswith("WRONG")]
        if wrong:
            text = "do not use sae-geometry here, and paste this text into an issue."
            return f"Wrong results on this machine ({'; '.join(wrong)}): {text}"
        on = "CPU and GPU" if any(name.startswith("cuda") for name in checks) else "CPU"
        if device["cuda"].startswith("unused"):
            return f"Works, exact on the {on}, but the GPU is unused: {_CUDA_TORCH}."
        missing = [name for name, text in self.sections["extras"].items() if text != "installed"]
        todo = f"Optional: pip install 'sae-geometry[{','.join(missing)}]'." if missing else "Nothing to do."
        return f"Works, exact on the {on}. {todo}"

    def to_dict(self) -> dict[str, Any]:
        """Return the diagnosis as a dict of JSON values."""
        return {"verdict": self.verdict, **self.sections, "rates": asdict(self.rates)}

    def markdown(self) -> str:
        """Return the verdict and the diagnosis as Markdown, to paste into an issue."""
        lines = [self.verdict, ""]
        for section, entries in self.sections.items():
            lines += [f"**{section}**", "", *(f"- {key}: {value}" for key, value in entries.items()), ""]
        return "\n".join([*lines, "**rates**", "", self.rates.markdown()])


def diagnose() -> Diagnosis:
    """Run the reference suite with every screen on the CPU and any GPU, and measure rates on the GPU, else the CPU."""
    engine, version, why = choose_backend("auto")
    cuda = torch.cuda.is_available()
    fused = _FUSED if cuda and importlib.util.find_spec("triton") else ()
    asked = [(f"sweep, {screen}", screen, "cpu") for screen in _ON_CPU]
    asked += [(f"cuda, {screen}", screen, "cuda") for screen in (*_ON_CUDA, *fused) if cuda]
    sections = {
        "software": software(),
        "extras": {
            extra: "installed" if importlib.util.find_spec(module) else f"pip install 'sae-geometry[{extra}]'"
            for extra, module in (_EXTRAS | _EXTRAS_ON_CUDA if cuda else _EXTRAS).items()
        },
        "device": _device(),
        "back ends": {
            "sweep": "torch float32 on the GPU" if cuda else "compiled loops on the CPU, float32 or int8",
            "UMAP": f"{engine} {version} ({why})",
        },
        "checks": {label: run_suite(screen, device) for label, screen, device in asked},
    }
    if cuda:
        return Diagnosis(sections, measure_rates("cuda", (*_ON_CUDA, *fused)))
    int8 = not sections["checks"]["sweep, int8"].startswith("not here")
    return Diagnosis(sections, measure_rates("cpu", _ON_CPU[:2] if int8 else _ON_CPU[:1]))


def _device() -> dict[str, str]:
    found = {
        "cpu": f"{counted(os.cpu_count() or 1, 'core')}, {counted(cpu_threads(), 'thread')} used; "
        f"{torch.backends.cpu.get_cpu_capability()}",
        "cuda": "none",
    }
    if torch.cuda.is_available():
        card = torch.cuda.get_device_properties(0)
        found["cuda"] = f"{card.name}, {card.total_memory / 2**30:.0f} GiB, compute {card.major}.{card.minor}"
    elif shutil.which("nvidia-smi"):
        why = "was built without CUDA, or the GPU driver is too old for it"
        found["cuda"] = f"unused: PyTorch {torch.__version__} {why}"
    if torch.backends.mps.is_available():
        found["mps"] = "available"
    return found
