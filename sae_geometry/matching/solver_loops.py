"""Inner loops of the restricted assignment problem: shortest augmenting paths with exact prices, compiled by numba.

Both sides are treated alike. `near` is the side a search starts from, `far` the other; p and q are their prices, with
p[x] + q[z] ≥ w on every listed pair and equality on matched pairs. A member that may stay unmatched has an outside
option worth `option` (−inf if it must be matched); its price is never below that, and equals it while the member is
unmatched. Import this module where it is used: importing numba takes 0.3 s.
"""

from __future__ import annotations

import numpy as np

from sae_geometry.kernels.loops.jit import compiled


@compiled()
def _rise(heap, place, key, at):  # type: ignore[no-untyped-def]
    item = heap[at]
    while at > 0:
        up = (at - 1) >> 1
        if key[heap[up]] <= key[item]:
            break
        heap[at] = heap[up]
        place[heap[at]] = at
        at = up
    heap[at] = item
    place[item] = at


@compiled()
def _pop(heap, place, key, size):  # type: ignore[no-untyped-def]
    """Remove heap[0] of `size` items by moving the last item to the top and sifting it down; return the new size."""
    size -= 1
    item = heap[size]
    at = 0
    while True:
        down = 2 * at + 1
        if down >= size:
            break
        if down + 1 < size and key[heap[down + 1]] < key[heap[down]]:
            down += 1
        if key[item] <= key[heap[down]]:
            break
        heap[at] = heap[down]
        place[heap[at]] = at
        at = down
    heap[at] = item
    place[item] = at
    return size


@compiled()
def _augment(x0, best, end_far, end_near, n_done, graph, near, far, scratch, option):  # type: ignore[no-untyped-def]
    """Match along a path that ends at `end_far`, or that leaves `end_near` unmatched, and make its prices tight."""
    w = graph[2]
    p, mate, mw = near
    q, far_mate, far_mw = far
    dist, via, via_edge, _, _, _, done, seen = scratch
    for t in range(n_done):
        q[done[t]] += best - dist[done[t]]
    z = end_far
    if end_near >= 0:
        z = mate[end_near]
        mate[end_near] = -1
    while z >= 0:
        x = via[z]
        before = mate[x]
        mate[x] = z
        far_mate[z] = x
        mw[x] = w[via_edge[z]]
        far_mw[z] = mw[x]
        z = -1 if x == x0 else before
    # Recompute prices from the pairs, so that they stay tight to the last bit after any number of paths.
    p[x0] = max(mw[x0] - q[mate[x0]], option) if mate[x0] >= 0 else option
    for t in range(n_done):
        x = seen[t]
        p[x] = max(mw[x] - q[mate[x]], option) if mate[x] >= 0 else option


@compiled()
def _search(x0, graph, near, far, scratch, option):  # type: ignore[no-untyped-def]
    """Match the free member x0, or leave one member of its side unmatched, along a shortest path.

    Return the number of pairs examined, or a negative number if x0 must be matched but cannot be.
    """
    ptr, idx, w = graph
    p, q, far_mate = near[0], far[0], far[1]
    dist, via, via_edge, heap, place, touched, done, seen = scratch
    best, end_far, end_near = np.inf, -1, -1
    if option > -np.inf:
        best, end_near = max(p[x0] - option, 0.0), x0
    n_touched, n_done, size, looked = 0, 0, 0, 0
    x, d = x0, 0.0
    while True:
        base = d + p[x]
        looked += ptr[x + 1] - ptr[x]
        for e in range(ptr[x], ptr[x + 1]):
            z = idx[e]
            reach = max(base + q[z] - w[e], d)
            if reach < best and reach < dist[z]:
                fresh = dist[z] == np.inf
                if fresh:
                    touched[n_touched] = z
                    n_touched += 1
                dist[z] = reach
                via[z] = x
                via_edge[z] = e
                if far_mate[z] < 0:
                    best, end_far, end_near = reach, z, -1
                else:
                    if fresh:
                        place[z] = size
                        heap[size] = z
                        size += 1
                    _rise(heap, place, dist, place[z])
        if size == 0 or dist[heap[0]] >= best:
            break
        z = heap[0]
        size = _pop(heap, place, dist, size)
        x, d = far_mate[z], dist[z]
        done[n_done] = z
        seen[n_done] = x
        n_done += 1
        if option > -np.inf and d + max(p[x] - option, 0.0) < best:
            best, end_far, end_near = d + max(p[x] - option, 0.0), -1, x
    if best < np.inf:
        _augment(x0, best, end_far, end_near, n_done, graph, near, far, scratch, option)
    for t in range(n_touched):
        dist[touched[t]] = np.inf
    return looked if best < np.inf else -looked - 1


@compiled()
def search_all(todo, start, budget, slack, graph, near, far, scratch, option):  # type: ignore[no-untyped-def]
    """Search from each free member of `todo[start:]` above its outside option, until `budget` pairs are examined.

    Return (position to continue from, member that could not be matched, or −1).
    """
    p, mate, _ = near
    looked = 0
    for t in range(start, todo.shape[0]):
        x = todo[t]
        if mate[x] >= 0 or p[x] <= option + slack:
            continue
        work = _search(x, graph, near, far, scratch, option)
        if work < 0:
            return t, x
        looked += work
        if looked > budget:
            return t + 1, -1
    return todo.shape[0], -1


@compiled()
def bid(todo, budget, graph, near, far, option):  # type: ignore[no-untyped-def]
    """Run auction steps without ε: a free row takes its best column and raises its price to match the second best.

    This cheap start leaves few and short searches. It stops after `budget` steps; displaced rows stay free.
    Column prices only rise, and only those of columns that end up matched change.
    """
    ptr, idx, w = graph
    u, mate, mw = near
    v, owner, owner_w = far
    steps = 0
    for t in range(todo.shape[0]):
        i = todo[t]
        while i >= 0 and mate[i] < 0 and steps < budget:
            steps += 1
            first, second, at, at_second = -np.inf, -np.inf, -1, -1
            for e in range(ptr[i], ptr[i + 1]):
                gain = w[e] - v[idx[e]]
                if gain > first:
                    second, at_second = first, at
                    first, at = gain, e
                elif gain > second:
                    second, at_second = gain, e
            u[i] = max(first, option)
            second = max(second, option)
            if first <= option or second == -np.inf:
                break
            if first == second and at_second >= 0 and owner[idx[at]] >= 0:
                at = at_second
            j = idx[at]
            loser = owner[j]
            if loser >= 0 and first == second:
                break
            v[j] += first - second
            owner[j] = i
            mate[i] = j
            mw[i] = w[at]
            owner_w[j] = w[at]
            u[i] = max(w[at] - v[j], option)
            if loser >= 0:
                mate[loser] = -1
            i = loser


@compiled()
def refresh(graph, near, far, option, slack):  # type: ignore[no-untyped-def]
    """Recompute row prices from column prices and unmatch every pair that is no longer its row's best."""
    ptr, idx, w = graph
    u, mate, mw = near
    v, owner, _ = far
    for i in range(u.shape[0]):
        best = option
        for e in range(ptr[i], ptr[i + 1]):
            best = max(best, w[e] - v[idx[e]])
        u[i] = best
        j = mate[i]
        if j >= 0:
            tight = mw[i] - v[j]
            if tight < best - slack:
                mate[i] = -1
                owner[j] = -1
            else:
                u[i] = max(tight, option)


@compiled()
def highest(graph, v, option, out):  # type: ignore[no-untyped-def]
    """Set out[i] = max(option, max over listed j of w_ij − v_j)."""
    ptr, idx, w = graph
    for i in range(out.shape[0]):
        best = option
        for e in range(ptr[i], ptr[i + 1]):
            best = max(best, w[e] - v[idx[e]])
        out[i] = best
