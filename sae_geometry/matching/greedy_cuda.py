"""Rounds of greedy matching on an NVIDIA GPU: two raw kernels without barriers or atomics, launched through CuPy.

Within one launch, no thread reads what another writes (except a flag, which is only set to 1), so the result
does not depend on thread order. The tests therefore compile the source as C++ and run its threads in sequence, forward
and backward, without a GPU.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Int64

from sae_geometry.io.extras import require

SOURCE = r"""
extern "C" {

// Move the pointer of every free member to its first partner that is still free. There is one thread per member.
__global__ void point(long long members, long long width, const long long* lists, long long* at,
                      const long long* own_match, const long long* their_match)
{
    const long long step = (long long)blockDim.x * gridDim.x;
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < members; i += step) {
        if (own_match[i] >= 0) continue;
        long long p = at[i];
        while (p < width && lists[i * width + p] >= 0 && their_match[lists[i * width + p]] >= 0) ++p;
        at[i] = p;
    }
}

// Join every free row with the column it points at if the column points back. There is one thread per row.
__global__ void join(long long rows, long long row_width, const long long* row_lists, const long long* row_at,
                     long long col_width, const long long* col_lists, const long long* col_at,
                     long long* partner, long long* owner, int* joined)
{
    const long long step = (long long)blockDim.x * gridDim.x;
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < rows; i += step) {
        if (partner[i] >= 0 || row_at[i] >= row_width) continue;
        const long long j = row_lists[i * row_width + row_at[i]];
        if (j < 0 || col_at[j] >= col_width || col_lists[j * col_width + col_at[j]] != i) continue;
        partner[i] = j;
        owner[j] = i;
        *joined = 1;
    }
}

}
"""

_THREADS = 256


def available() -> bool:
    """Return whether CuPy is installed and sees a GPU."""
    try:
        import cupy
    except ImportError:
        return False
    try:
        return bool(cupy.cuda.runtime.getDeviceCount() > 0)
    except cupy.cuda.runtime.CUDARuntimeError:
        return False


def join_dominant_cuda(
    row_list: Int64[np.ndarray, "n k"],
    row_at: Int64[np.ndarray, " n"],
    col_list: Int64[np.ndarray, "m l"],
    col_at: Int64[np.ndarray, " m"],
    partner: Int64[np.ndarray, " n"],
    owner: Int64[np.ndarray, " m"],
) -> int:
    """Run `greedy_loops.join_dominant` on the GPU, with the same arguments and the same changes in place.

    The lists are copied to the GPU and the answer back (a few megabytes at 46,080 latents), and the answer is audited.

    Raises:
        RuntimeError: the answer fails the audit.
    """
    cupy = require("cupy", "cu13", "greedy matching on a GPU")
    module = cupy.RawModule(code=SOURCE)
    point, join = module.get_function("point"), module.get_function("join")
    (n, k), (m, width) = row_list.shape, col_list.shape
    lists_r, at_r, lists_c, at_c, mate, taken = (
        cupy.asarray(np.ascontiguousarray(x)) for x in (row_list, row_at, col_list, col_at, partner, owner)
    )
    joined = cupy.zeros(1, dtype=np.int32)
    size_n, size_m = np.int64(n), np.int64(m)
    blocks_n, blocks_m = (-(-n // _THREADS),), (-(-m // _THREADS),)
    rounds = 0
    while True:
        joined.fill(0)
        point(blocks_n, (_THREADS,), (size_n, np.int64(k), lists_r, at_r, mate, taken))
        point(blocks_m, (_THREADS,), (size_m, np.int64(width), lists_c, at_c, taken, mate))
        join(blocks_n, (_THREADS,),
             (size_n, np.int64(k), lists_r, at_r, np.int64(width), lists_c, at_c, mate, taken, joined))  # fmt: skip
        rounds += 1
        if int(joined[0]) == 0:
            break
    for host, device in ((row_at, at_r), (col_at, at_c), (partner, mate), (owner, taken)):
        host[:] = cupy.asnumpy(device)
    audit(row_list, row_at, col_list, col_at, partner, owner)
    return rounds


def audit(
    row_list: Int64[np.ndarray, "n k"],
    row_at: Int64[np.ndarray, " n"],
    col_list: Int64[np.ndarray, "m l"],
    col_at: Int64[np.ndarray, " m"],
    partner: Int64[np.ndarray, " n"],
    owner: Int64[np.ndarray, " m"],
) -> None:
    """Raise RuntimeError if an answer is not a matching, skips a free partner, or leaves a dominant pair unmatched."""
    rows, cols = np.flatnonzero(partner >= 0), np.flatnonzero(owner >= 0)
    if rows.size != cols.size or bool((owner[partner[rows]] != rows).any()):
        raise RuntimeError("greedy matching on the GPU left inconsistent partners; please report this device")
    aims = []
    for lists, at, own, theirs in ((row_list, row_at, partner, owner), (col_list, col_at, owner, partner)):
        width = lists.shape[1]
        passed = (np.arange(width) < at[:, None]) & (lists >= 0)
        if bool((passed & (theirs[lists] < 0)).any()):
            raise RuntimeError("greedy matching on the GPU skipped a free partner; please report this device")
        aim = np.where(at < width, lists[np.arange(at.size), np.minimum(at, width - 1)], -1)
        aims.append(np.where(own < 0, aim, -2))
    free = np.flatnonzero(aims[0] >= 0)
    if bool((aims[1][aims[0][free]] == free).any()):
        raise RuntimeError("greedy matching on the GPU left a dominant pair unmatched; please report this device")
