"""What the last bit of a float sum depends on, here and on a worker: where both agree, whole pairs may be sent."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import torch


def arithmetic() -> dict[str, Any]:
    """All that the last bit of a float sum depends on beside the number of threads: processor and libraries."""
    import llvmlite.binding
    import numba
    import scipy.linalg  # with it all that add up are loaded, here and there
    import threadpoolctl

    blas = [
        (x.get("internal_api"), x.get("version"), x.get("architecture"))
        for x in threadpoolctl.threadpool_info()
        if x.get("user_api") == "blas"
    ]
    return {
        "sae-geometry": own_version(),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "processor": str(llvmlite.binding.get_host_cpu_name()),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "torch": torch.__version__,
        "numba": numba.__version__,
        "blas": sorted(map(str, blas)),
    }


def blas_threads() -> int:
    """Threads that numpy's BLAS uses in this process."""
    import threadpoolctl

    return max((x["num_threads"] for x in threadpoolctl.threadpool_info() if x.get("user_api") == "blas"), default=1)


def own_version() -> str:
    """Return the version of this package, in words where it is not installed as one."""
    try:
        return version("sae-geometry")
    except PackageNotFoundError:
        return "not installed as a package"
