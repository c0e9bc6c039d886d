"""Dictionaries: unit decoder directions with the identity of every latent.

All results are computed from a `Dictionary`. It is frozen, its rows are float32 unit vectors, and every row carries the
index it has in its file, so that results refer to latent ids, never to positions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from sae_geometry.io.escaping import escaped, shown
from sae_geometry.io.formatting import counted
from sae_geometry.io.labels import Labels

LatentAxis = Literal[0, 1]

# Rows are normalized in float64, this many elements at a time, so that a large decoder needs no second copy.
_CHUNK_ELEMENTS = 1 << 22
_MAX_NAMED = 8
_LONGEST_NOTE = 1000  # characters


@dataclass(frozen=True)
class Alive:
    """Which latents fire, and the source of that information.

    Attributes:
        source: description of the source; "unknown" if there is none.
        n_total: number of latents in the file, before any were dropped.
        n_dead: number of latents known never to fire; None when unknown.
        n_dropped_dead: number of dead latents removed from this dictionary.
        n_tokens: tokens over which firing was counted; None when not recorded.
        bad_ids: original ids dropped because their decoder row was zero or not finite (`drop_bad=True`).
    """

    source: str
    n_total: int
    n_dead: int | None = None
    n_dropped_dead: int = 0
    n_tokens: int | None = None
    bad_ids: tuple[int, ...] = ()

    def describe(self) -> str:
        """Return a phrase: "1,491 of 1,536 alive (frequency > 0 over 102,400 tokens); 45 dead dropped"."""
        if self.n_dead is None:
            which = "whether the latent is" if self.n_total == 1 else f"which of the {self.n_total:,} latents are"
            text = f"{which} alive is unknown; none dropped for it"
        else:
            over = f" over {counted(self.n_tokens, 'token')}" if self.n_tokens else ""
            fate = f"{self.n_dropped_dead:,} dead dropped" if self.n_dropped_dead else "none dropped"
            text = f"{self.n_total - self.n_dead:,} of {self.n_total:,} alive ({self.source}{over}); {fate}"
        if self.bad_ids:
            text += f"; {counted(len(self.bad_ids), 'bad row')} dropped"
        return text


@dataclass(frozen=True, eq=False, repr=False)
class Dictionary:
    """Unit decoder directions of one sparse autoencoder, with the id of every latent.

    Build one with `sae_geometry.load(address)` or `Dictionary.from_decoder(weight, latent_axis=…)`; the constructor
    does not check its arguments.

    Attributes:
        directions: float32 [n_latents, d_in]; row i is decoder direction i divided by its Euclidean norm.
        encoder_directions: unit encoder directions, [n_latents, d_encoder], or None if there is no encoder. For an
            ordinary SAE d_encoder = d_in. A zero encoder row stays zero.
        latent_ids: int64 [n_latents], the index of each latent in its file.
        decoder_norms: float32 [n_latents], Euclidean norms before normalization, in the file's own units.
        encoder_bias: float32 [n_latents], in the file's own units, or None.
        decoder_bias: float32 [d_in], in the file's own units, or None.
        threshold: float32 [n_latents], pre-activation above which a JumpReLU latent fires, or None.
        frequency: float64 [n_latents], share of tokens on which the latent fires, or None.
        alive_mask: bool [n_latents], or None when unknown.
        alive: counts of dead latents, with their source.
        name: short label for tables and figures. This and the other texts are one line each, without control
            characters, and cut beyond 200 characters (`io.formatting.shown`).
        hook_point: hook point in the model, for example "blocks.6.hook_resid_pre"; None when unknown.
        model: name of the model; None when unknown.
        address: address it was loaded from; None for one made in memory.
        layout: checkpoint layout it was read from; None for one made in memory.
        labels: tokens, explanations and other labels by original latent id (`labeled`); None without any.
        metadata: other information from the source (kind, seed, metrics), read-only.
        notes: warnings to show with results (assumptions made while reading, dropped rows).
        unmapped: the dictionary before a linear map (`sae_geometry.mapped`); None where none was applied.
    """

    directions: Float[Tensor, "n_latents d_in"]
    encoder_directions: Float[Tensor, "n_latents d_encoder"] | None
    latent_ids: Int64[Tensor, " n_latents"]
    decoder_norms: Float[Tensor, " n_latents"]
    alive: Alive
    name: str
    encoder_bias: Tensor | None = None
    decoder_bias: Tensor | None = None
    threshold: Tensor | None = None
    frequency: Tensor | None = None
    alive_mask: Tensor | None = None
    hook_point: str | None = None
    model: str | None = None
    address: str | None = None
    layout: str | None = None
    labels: Labels | None = None
    metadata: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    notes: tuple[str, ...] = ()
    unmapped: Dictionary | None = None

    def __post_init__(self) -> None:
        """Names come from files and servers: whatever shows them, they are one line that a reader can see."""
        for name in ("name", "hook_point", "model", "layout"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, shown(value))
        object.__setattr__(self, "notes", tuple(shown(note, _LONGEST_NOTE) for note in self.notes))
        plain = {k: escaped(v) if isinstance(v, str) else v for k, v in self.metadata.items()}
        object.__setattr__(self, "metadata", MappingProxyType(plain))

    @staticmethod
    def from_decoder(
        weight: Any,
        *,
        latent_axis: LatentAxis,
        encoder: Any = None,
        encoder_latent_axis: LatentAxis | None = None,
        name: str = "dictionary",
        hook_point: str | None = None,
        model: str | None = None,
        encoder_bias: Any = None,
        decoder_bias: Any = None,
        threshold: Any = None,
        frequency: Any = None,
        alive: Any = None,
        alive_source: str = "given by the caller",
        n_tokens: int | None = None,
        address: str | None = None,
        layout: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        notes: Sequence[str] = (),
        drop_bad: bool = False,
    ) -> Dictionary:
        """Build a dictionary from a decoder weight in memory.

        Row i of the result is w_i / ‖w_i‖₂, computed in float64 and rounded once to float32, where w_i is the decoder
        vector of latent i.

        Args:
            weight: [n_latents, d_in] with `latent_axis=0`, [d_in, n_latents] with `latent_axis=1`; a torch tensor,
                numpy array or anything `torch.as_tensor` takes, of any real floating type.
            latent_axis: axis of `weight` that indexes latents. Never guessed.
            encoder: the encoder weight, if there is one.
            encoder_latent_axis: axis of `encoder` that indexes latents; `latent_axis` by default.
            name: label for tables and figures.
            hook_point, model, address, layout, metadata, notes: recorded as given.
            encoder_bias: [n_latents], recorded as given.
            decoder_bias: [d_in], recorded as given.
            threshold: [n_latents], recorded as given.
            frequency: [n_latents], share of tokens on which each latent fires.
            alive: bool [n_latents], or the ids of the alive latents. Recorded, not applied: see `keep_alive`.
            alive_source, n_tokens: source of `alive`, and the number of tokens it was counted over.
            drop_bad: drop latents whose decoder row is zero, NaN or infinite, and record their ids, instead of
                raising.

        Raises:
            ValueError: inconsistent shapes, no plain array of numbers (masked, sparse, quantized, text), a frequency
                outside 0…1, or a zero, NaN or infinite row (the message names the latents).

        Example:
            >>> import numpy as np, sae_geometry as sg
            >>> d = sg.Dictionary.from_decoder(np.eye(3, 5), latent_axis=0, name="toy")
            >>> d.n_latents, d.d_in
            (3, 5)
        """
        w = _latents_first(weight, latent_axis, "decoder weight", "latent_axis")
        n = w.shape[0]
        directions, norms, bad = _unit_rows(w)
        encoder_directions = None
        if encoder is not None:
            axis = latent_axis if encoder_latent_axis is None else encoder_latent_axis
            e = _latents_first(encoder, axis, "encoder weight", "encoder_latent_axis")
            if e.shape[0] != n:
                raise ValueError(
                    f"the decoder has {counted(n, 'latent')} but the encoder, of shape {tuple(np.shape(encoder))}, has "
                    f"{e.shape[0]:,} along axis {axis}; pass encoder_latent_axis={1 - axis} if its latents lie there"
                )
            encoder_directions, _, bad_encoder = _unit_rows(e)
            encoder_directions[bad_encoder] = 0.0
            notes = [*notes, *_encoder_notes(name, e, bad_encoder, bad, drop_bad)]
        if bad.all():
            raise ValueError(f"all decoder rows of {name!r} ({n:,}) are zero or not finite: none has a direction")
        if bad.any() and not drop_bad:
            raise ValueError(_bad_rows_message(name, w, bad))
        b_enc = None if encoder_bias is None else _vector(encoder_bias, n, "encoder_bias", "latents").to(torch.float32)
        b_dec = (
            None
            if decoder_bias is None
            else _vector(decoder_bias, w.shape[1], "decoder_bias", "coordinates").to(torch.float32)
        )
        jump = None if threshold is None else _vector(threshold, n, "threshold", "latents").to(torch.float32)
        freq = None if frequency is None else _shares(frequency, n)
        mask = None if alive is None else _alive_mask(alive, n)
        if mask is None and freq is not None:
            mask, alive_source = freq > 0, "frequency > 0"
        dictionary = Dictionary(
            directions=directions,
            encoder_directions=encoder_directions,
            latent_ids=torch.arange(n),
            decoder_norms=norms,
            alive=Alive(
                source="unknown" if mask is None else alive_source,
                n_total=n,
                n_dead=None if mask is None else int((~mask).sum()),
                n_tokens=n_tokens,
            ),
            name=name,
            encoder_bias=b_enc,
            decoder_bias=b_dec,
            threshold=jump,
            frequency=freq,
            alive_mask=mask,
            hook_point=hook_point,
            model=model,
            address=address,
            layout=layout,
            metadata=MappingProxyType(dict(metadata or {})),
            notes=tuple(notes),
        )
        if not bad.any():
            return dictionary
        kept = dictionary.select(~bad)
        ids = tuple(int(i) for i in bad.nonzero().flatten())
        note = f"{counted(len(ids), 'latent')} dropped: zero or non-finite decoder rows ({_some_ids(ids)})"
        return replace(kept, alive=replace(kept.alive, bad_ids=ids), notes=(*kept.notes, note))

    @property
    def n_latents(self) -> int:
        """Return the number of latents (rows)."""
        return int(self.directions.shape[0])

    @property
    def d_in(self) -> int:
        """Return the width of the space that the decoder writes to."""
        return int(self.directions.shape[1])

    @property
    def device(self) -> torch.device:
        """Return the device of the directions."""
        return self.directions.device

    @cached_property
    def fingerprint(self) -> str:
        """Return the SHA-256 (hex) of shapes, decoder directions, encoder directions and latent ids.

        It covers exactly what results depend on: the same weights under another name or address have the same
        fingerprint, and so does a raw file whose decoder rows differ only by powers of two.
        """
        digest = hashlib.sha256()
        for tag, tensor in (
            ("decoder", self.directions),
            ("encoder", self.encoder_directions),
            ("ids", self.latent_ids),
        ):
            if tensor is not None:
                digest.update(f"{tag}:{tuple(tensor.shape)}:".encode())
                digest.update(tensor.detach().cpu().contiguous().numpy().data.cast("B"))
        return digest.hexdigest()

    def select(self, which: Any) -> Dictionary:
        """Return a dictionary of selected latents, with their original ids.

        Args:
            which: a bool mask [n_latents], or original latent ids in any order.

        Raises:
            ValueError: a mask of another length, an unknown id, or an empty selection.
        """
        rows = self._rows(which)
        if rows.numel() == 0:
            raise ValueError(f"the selection keeps none of the {counted(self.n_latents, 'latent')} of {self.name!r}")

        def pick(t: Tensor | None) -> Tensor | None:
            return None if t is None else t[rows.to(t.device)]

        return replace(
            self,
            directions=self.directions[rows.to(self.device)],
            encoder_directions=pick(self.encoder_directions),
            latent_ids=self.latent_ids[rows],
            decoder_norms=self.decoder_norms[rows.to(self.decoder_norms.device)],
            encoder_bias=pick(self.encoder_bias),
            threshold=pick(self.threshold),
            frequency=pick(self.frequency),
            alive_mask=pick(self.alive_mask),
            labels=None if self.labels is None else self.labels.select(self.latent_ids[rows].numpy()),
        )

    def keep_alive(self) -> Dictionary:
        """Return the dictionary without latents known to be dead; unchanged if none is.

        Raises:
            ValueError: every latent is known to be dead.
        """
        if self.alive_mask is None or bool(self.alive_mask.all()):
            return self
        if not bool(self.alive_mask.any()):
            raise ValueError(
                f"all {counted(self.n_latents, 'latent')} of {self.name!r} are dead by {self.alive.source}; "
                'load it with latents="all" (--latents all) to look at them'
            )
        dropped = int((~self.alive_mask).sum())
        kept = self.select(self.alive_mask)
        return replace(kept, alive=replace(self.alive, n_dropped_dead=self.alive.n_dropped_dead + dropped))

    def folded(self) -> Dictionary:
        """Return the dictionary with decoder rows multiplied by the latents' thresholds, and encoder rows divided.

        The function of the SAE is the same, and every threshold becomes 1, so that norms of different layers compare
        (SAE Match, Balagansky et al. 2024). Directions do not change.

        Raises:
            ValueError: the thresholds are unknown or not positive.
        """
        if self.threshold is None:
            raise ValueError(
                f"{self.name!r} has no thresholds to fold (layout {self.layout or 'unknown'}); only JumpReLU SAEs have "
                "them: leave out fold=True (--fold)"
            )
        bad = (~(self.threshold > 0)).nonzero().flatten()
        if len(bad):
            ids = [int(self.latent_ids[i]) for i in bad.tolist()]
            raise ValueError(
                f"{self.name!r} has thresholds that are not positive and cannot be folded: latents {_some_ids(ids)}; "
                "leave out fold=True (--fold)"
            )
        theta = self.threshold.cpu()
        return replace(
            self,
            decoder_norms=self.decoder_norms * theta.to(self.decoder_norms.device),
            encoder_bias=None if self.encoder_bias is None else self.encoder_bias / theta.to(self.encoder_bias.device),
            threshold=torch.ones_like(theta),
        )

    def to(self, device: str | torch.device) -> Dictionary:
        """Return the dictionary with its directions on `device`; ids, norms and frequencies are not moved."""
        encoder = None if self.encoder_directions is None else self.encoder_directions.to(device)
        return replace(self, directions=self.directions.to(device), encoder_directions=encoder)

    def renamed(self, name: str) -> Dictionary:
        """Return the dictionary under another name."""
        return replace(self, name=name)

    def labeled(self, labels: Labels) -> Dictionary:
        """Return the dictionary with these labels joined to its own; they never change a similarity.

        A `density` of every latent becomes the frequency where none is known, and tells which latents are alive.

        Raises:
            ValueError: labels of latents beyond those of the dictionary's file, or of none of its latents.
        """
        ids, own = labels.frame.index, self.latent_ids.numpy()
        source = next(iter(labels.sources.values()), "the table")
        if len(ids) and int(ids.max()) >= self.alive.n_total:
            raise ValueError(
                f"{source} labels latents up to {int(ids.max()):,} and {self.name!r} has {self.alive.n_total:,} "
                f"(0…{self.alive.n_total - 1:,}): these are the labels of another dictionary"
            )
        mine = labels.select(own)
        if mine.frame.empty:
            raise ValueError(f"{source} labels none of the {counted(self.n_latents, 'latent')} of {self.name!r}")
        there = replace(self, labels=mine if self.labels is None else self.labels.joined(mine))
        density = mine.for_ids(own).get("density")
        if density is None or self.frequency is not None or density.isna().any():
            return there
        frequency = _shares(density.to_numpy(dtype=np.float64, copy=True), self.n_latents)
        if self.alive_mask is not None:
            return replace(there, frequency=frequency)
        n_dead = int((frequency == 0).sum())
        alive = replace(self.alive, source=f"density by {labels.sources['density']}", n_dead=n_dead)
        return replace(there, frequency=frequency, alive_mask=frequency > 0, alive=alive)

    def _rows(self, which: Any) -> Tensor:
        t = plain_tensor(which, "selection").cpu()
        if t.ndim != 1:
            raise ValueError(f"select takes a mask or a list of ids, one-dimensional; got shape {tuple(t.shape)}")
        if t.dtype == torch.bool:
            if t.shape[0] != self.n_latents:
                raise ValueError(f"the mask has length {t.shape[0]:,} for {counted(self.n_latents, 'latent')}")
            return t.nonzero().flatten()
        if t.numel() and (t.is_floating_point() or t.is_complex()):
            raise ValueError(f"latent ids are whole numbers; got {t.dtype}")
        where = {int(latent): row for row, latent in enumerate(self.latent_ids.tolist())}
        missing = [int(i) for i in t.tolist() if int(i) not in where]
        if missing:
            raise ValueError(f"{self.name!r} has no latent {_some_ids(missing)}")
        return torch.tensor([where[int(i)] for i in t.tolist()], dtype=torch.int64)

    def __repr__(self) -> str:
        lines = [f"Dictionary {self.name!r}: {counted(self.n_latents, 'latent')} × {self.d_in:,}"]
        space = [x for x in (self.model, self.hook_point) if x]
        lines.append(f"  space        {' · '.join(space) if space else 'model and hook point unknown'}")
        lines.append(f"  latents      {self.alive.describe()}")
        if self.encoder_directions is None:
            lines.append("  encoder      none")
        else:
            lines.append(f"  encoder      {self.n_latents:,} × {self.encoder_directions.shape[1]:,}")
        lo, hi = float(self.decoder_norms.min()), float(self.decoder_norms.max())
        lines.append(f"  raw norms    {lo:.4g} … {hi:.4g}")
        if self.address:
            lines.append(f"  address      {shown(self.address)}{f' ({self.layout})' if self.layout else ''}")
        lines.append(f"  fingerprint  {self.fingerprint[:16]}")
        lines += [f"  note         {note}" for note in self.notes]
        return "\n".join(lines)


def plain_tensor(values: Any, what: str) -> Tensor:
    """Return values as a plain tensor of real or complex numbers; unsigned whole numbers become signed.

    Raises:
        ValueError: masked, sparse, quantised, not numbers, or of a type that torch does not have.
    """
    kind = f"{type(values).__name__} of {str(getattr(values, 'dtype', 'no type'))[:40]}"
    t = None
    if np.ma.is_masked(values):
        raise ValueError(
            f"the {what} has masked values ({int(np.ma.count_masked(values)):,}), which stand for no number: fill them "
            "(.filled(0)), or leave those latents out"
        )
    with suppress(TypeError, ValueError, OverflowError, RuntimeError):
        t = values.detach() if isinstance(values, Tensor) else _from_array(np.asarray(values))
        if t.layout != torch.strided or t.is_quantized or t.is_meta or t.is_nested or hasattr(t, "get_mask"):
            t = None
        elif t.dtype in (torch.uint16, torch.uint32, torch.uint64):
            t = None if t.numel() and int(t.to(torch.int64).min()) < 0 else t.to(torch.int64)
        else:
            t.reshape(-1)[:1].to(torch.complex128 if t.is_complex() else torch.float64)
            return t
    if t is None or t.dtype != torch.int64:
        raise ValueError(f"the {what} must be a dense array of real numbers, not {kind}: convert it first, to float32")
    return t


def _from_array(array: np.ndarray) -> Tensor:
    if array.dtype.kind not in "biufc":
        raise TypeError
    return torch.as_tensor(array.copy() if any(step < 0 for step in array.strides) else array)


def _latents_first(weight: Any, latent_axis: int, what: str, argument: str) -> Tensor:
    w = plain_tensor(weight, what)
    if w.ndim != 2:
        raise ValueError(f"the {what} must have two axes, latents and width; got shape {tuple(w.shape)}")
    if latent_axis not in (0, 1):
        raise ValueError(f"{argument} must be 0 ([n_latents, d_in]) or 1 ([d_in, n_latents]); got {latent_axis!r}")
    if not w.is_floating_point():
        if w.is_complex() or w.dtype == torch.bool:
            raise ValueError(f"the {what} must hold real numbers; got {w.dtype}")
        w = w.to(torch.float64)
    if 0 in w.shape:
        raise ValueError(f"the {what} is empty: shape {tuple(w.shape)}")
    return w if latent_axis == 0 else w.T


def _unit_rows(w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return unit float32 rows, float32 norms, and a mask (on the CPU) of rows that are zero or not finite.

    Each row is first divided by the power of two of its largest entry, which is exact, so that no norm underflows or
    overflows. Bad rows are returned as zeros.
    """
    n, d = w.shape
    out = torch.empty((n, d), dtype=torch.float32, device=w.device)
    norms = torch.empty(n, dtype=torch.float32)
    bad = torch.empty(n, dtype=torch.bool)
    step = max(1, _CHUNK_ELEMENTS // d)
    for start in range(0, n, step):
        rows = slice(start, min(start + step, n))
        x = w[rows].to(torch.float64)
        peak = x.abs().amax(dim=1)
        _, exponent = torch.frexp(peak)
        wrong = ~torch.isfinite(peak) | (peak == 0)
        exponent = torch.where(wrong, torch.zeros_like(exponent), exponent)
        half = torch.div(exponent, 2, rounding_mode="floor")
        for part in (half, exponent - half):  # in two steps, since 2¹⁰²⁴ overflows
            x = torch.ldexp(x, -part[:, None].to(torch.float64))
        norm = torch.linalg.vector_norm(x, dim=1)
        unit = x / norm[:, None]
        out[rows] = torch.where(wrong[:, None], 0.0, unit).to(torch.float32)
        norms[rows] = torch.ldexp(norm, exponent.to(torch.float64)).to(torch.float32).cpu()
        bad[rows] = wrong.cpu()
    return out, norms, bad


def _encoder_notes(name: str, e: Tensor, bad_encoder: Tensor, bad_decoder: Tensor, drop_bad: bool) -> list[str]:
    """Return notes on zero encoder rows; raise for rows that are not finite unless `drop_bad`."""
    rows = (bad_encoder & ~bad_decoder).nonzero().flatten()
    finite = torch.isfinite(e[rows.to(e.device)].to(torch.float64)).all(dim=1).cpu()
    broken, silent = rows[~finite].tolist(), rows[finite].tolist()
    if broken and not drop_bad:
        raise ValueError(
            f"{name!r} has encoder rows with NaN or inf: latents {_some_ids(broken)}; pass "
            "drop_bad=True (--drop-bad) to have them taken as zero and recorded"
        )
    notes = [f"{counted(len(silent), 'latent')} with a zero encoder row ({_some_ids(silent)})"] if silent else []
    return notes + (
        [f"{counted(len(broken), 'encoder row')} not finite, taken as zero ({_some_ids(broken)})"] if broken else []
    )


def _bad_rows_message(name: str, w: Tensor, bad: Tensor) -> str:
    rows = bad.nonzero().flatten()
    peak = w[rows.to(w.device)].to(torch.float64).abs().amax(dim=1)
    n_zero = int((peak == 0).sum())
    kinds = [f"{n_zero:,} zero"] if n_zero else []
    kinds += [f"{len(rows) - n_zero:,} with NaN or inf"] if len(rows) > n_zero else []
    return (
        f"{name!r} has decoder rows without a direction ({', '.join(kinds)}): latents {_some_ids(rows.tolist())}; "
        "pass drop_bad=True (--drop-bad) to drop them and have them recorded"
    )


def _some_ids(ids: Sequence[int]) -> str:
    shown = ", ".join(str(i) for i in ids[:_MAX_NAMED])
    return shown + (f" and {len(ids) - _MAX_NAMED:,} more" if len(ids) > _MAX_NAMED else "")


def _vector(values: Any, n: int, what: str, of: str) -> Tensor:
    t = plain_tensor(values, what).cpu()
    if t.shape != (n,):
        raise ValueError(f"{what} must have one entry for each of the {n:,} {of}; got shape {tuple(t.shape)}")
    if t.is_complex():
        raise ValueError(f"{what} must hold real numbers; got {t.dtype}")
    return t


def _shares(frequency: Any, n: int) -> Tensor:
    t = _vector(frequency, n, "frequency", "latents").to(torch.float64)
    outside = (~((t >= 0) & (t <= 1))).nonzero().flatten().tolist()  # NaN is outside too
    if outside:
        raise ValueError(
            f"frequency must be the share of tokens on which each latent fires, 0…1; latents {_some_ids(outside)} have "
            f"{', '.join(f'{float(t[i]):.4g}' for i in outside[:_MAX_NAMED])}: divide counts by the number of tokens"
        )
    return t


def _alive_mask(alive: Any, n: int) -> Tensor:
    t = plain_tensor(alive, "list of alive latents").cpu()
    if t.dtype == torch.bool:
        return _vector(t, n, "alive", "latents")
    ids = t.flatten()
    if ids.numel() and (ids.is_floating_point() or ids.is_complex() or ids.unique().numel() < ids.numel()):
        raise ValueError(
            f"alive must be a bool mask of length {n:,} or a list of different latent ids; got {t.dtype} values "
            f"beginning {ids[:4].tolist()}: for a mask of 0 and 1, pass alive > 0"
        )
    ids = ids.to(torch.int64)
    if ids.numel() and (int(ids.min()) < 0 or int(ids.max()) >= n):
        raise ValueError(
            f"alive ids must lie in 0…{n - 1:,}; got {int(ids.min()):,}…{int(ids.max()):,}: "
            "is this list from another run?"
        )
    mask = torch.zeros(n, dtype=torch.bool)
    mask[ids] = True
    return mask
