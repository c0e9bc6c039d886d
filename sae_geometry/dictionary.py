"""The `Dictionary` class: unit decoder directions with the id of every latent.

All results are computed from a `Dictionary`. The class is frozen, and its rows are float32 unit vectors. Each row
has the id of its latent, the index in the file, so that results refer to latent ids, never to row numbers.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from sae_geometry.io.activity import Alive, alive_mask_of, shares
from sae_geometry.io.escaping import escaped, shown
from sae_geometry.io.formatting import counted
from sae_geometry.io.labels import Labels
from sae_geometry.io.weights import (
    LatentAxis,
    bad_rows_message,
    encoder_rows,
    latents_first,
    plain_tensor,
    some_ids,
    unit_rows,
    vector,
)

_LONGEST_NOTE = 1000  # maximum length of a note, in characters
_PER_LATENT = (
    "directions", "encoder_directions", "latent_ids", "decoder_norms", "encoder_bias", "threshold", "frequency",
    "alive_mask",
)  # fmt: skip

# A forked process has none of its parent's OpenMP threads, and torch would wait for them forever.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))


@dataclass(frozen=True, eq=False, repr=False)
class Dictionary:
    """Unit decoder directions of one sparse autoencoder, with the id of every latent.

    Build one with `sae_geometry.load(address)` or `Dictionary.from_decoder(weight, latent_axis=…)`; the constructor
    does not check its arguments.

    Attributes:
        directions: float32 [n_latents, d_in]; row i is decoder direction i divided by its Euclidean norm.
        encoder_directions: unit encoder directions, [n_latents, d_encoder]; None if there is no encoder. For an
            ordinary SAE, d_encoder = d_in. A zero encoder row stays zero.
        latent_ids: int64 [n_latents], the index of each latent in its file.
        decoder_norms: float32 [n_latents], Euclidean norms before normalization, in the file's own units.
        encoder_bias: float32 [n_latents], in the file's own units; None if unknown.
        decoder_bias: float32 [d_in], in the file's own units; None if unknown.
        threshold: float32 [n_latents], pre-activation above which a JumpReLU latent fires; None if unknown.
        frequency: float64 [n_latents], share of tokens on which the latent fires; None if unknown.
        alive_mask: bool [n_latents], True for alive latents; None if unknown.
        alive: counts of alive and dead latents, and the source of the counts.
        name: short label for tables and figures. Like hook_point, model and layout, it is escaped and cut to 200
            characters (`io.escaping.shown`).
        hook_point: hook point in the model, for example "blocks.6.hook_resid_pre"; None if unknown.
        model: name of the model; None if unknown.
        address: address from which the dictionary was loaded; None if it was built in memory.
        layout: layout of the checkpoint from which it was read; None if it was built in memory.
        labels: tokens, explanations and other labels by original latent id (`labeled`); None if there are none.
        metadata: other information from the source (kind, seed, metrics), read-only.
        notes: warnings to show with results (assumptions made while reading, dropped rows).
        unmapped: the dictionary before a linear map (`sae_geometry.mapped`); None if no map was applied.
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
        """Escape names, notes and metadata, since they may come from untrusted files and servers."""
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
                numpy array or anything that `torch.as_tensor` accepts, of any real floating type.
            latent_axis: axis of `weight` that indexes latents; it is never guessed.
            encoder: the encoder weight, if there is one.
            encoder_latent_axis: axis of `encoder` that indexes latents; `latent_axis` by default.
            name: label for tables and figures.
            hook_point, model, address, layout, metadata, notes: recorded as given.
            encoder_bias: [n_latents], recorded as given.
            decoder_bias: [d_in], recorded as given.
            threshold: [n_latents], recorded as given.
            frequency: [n_latents], share of tokens on which each latent fires.
            alive: bool [n_latents], or the ids of the alive latents. Dead latents stay until `keep_alive`.
            alive_source, n_tokens: source of `alive`, and the number of tokens over which firing was counted.
            drop_bad: drop latents whose decoder row is zero, NaN or infinite, and record their ids, instead of
                raising.

        Raises:
            ValueError: shapes are inconsistent, an input is masked, sparse, quantized or text, a frequency is outside
                [0, 1], or a row is zero, NaN or infinite (the message names its latent).

        Example:
            >>> import numpy as np, sae_geometry as sg
            >>> d = sg.Dictionary.from_decoder(np.eye(3, 5), latent_axis=0, name="toy")
            >>> d.n_latents, d.d_in
            (3, 5)
        """
        w = latents_first(weight, latent_axis, "decoder weight", "latent_axis")
        n, d_in = w.shape
        directions, norms, bad = unit_rows(w)
        encoder_directions = None
        if encoder is not None:
            axis = latent_axis if encoder_latent_axis is None else encoder_latent_axis
            encoder_directions, more = encoder_rows(encoder, axis, bad, name=name, drop_bad=drop_bad)
            notes = [*notes, *more]
        if bad.all():
            raise ValueError(f"all {n:,} decoder rows of {name!r} are zero or not finite, so none has a direction")
        if bad.any() and not drop_bad:
            raise ValueError(bad_rows_message(name, w, bad))
        freq = None if frequency is None else shares(frequency, n)
        mask = None if alive is None else alive_mask_of(alive, n)
        if mask is None and freq is not None:
            mask, alive_source = freq > 0, "frequency > 0"
        n_dead = None if mask is None else int((~mask).sum())
        dictionary = Dictionary(
            directions, encoder_directions, torch.arange(n), norms,
            Alive("unknown" if mask is None else alive_source, n, n_dead, n_tokens=n_tokens), name,
            encoder_bias=vector(encoder_bias, n, "encoder_bias", "latents"),
            decoder_bias=vector(decoder_bias, d_in, "decoder_bias", "coordinates"),
            threshold=vector(threshold, n, "threshold", "latents"),
            frequency=freq, alive_mask=mask, hook_point=hook_point, model=model, address=address, layout=layout,
            metadata=metadata or {}, notes=tuple(notes),
        )  # fmt: skip
        if not bad.any():
            return dictionary
        kept, ids = dictionary.select(~bad), tuple(int(i) for i in bad.nonzero().flatten())
        note = f"{counted(len(ids), 'latent')} dropped: zero or non-finite decoder rows ({some_ids(ids)})"
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

        It covers exactly the values on which results depend: the same weights under another name or address, or with
        decoder rows scaled by powers of two, have the same fingerprint.
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
        """Return a dictionary of the selected latents, with their original ids.

        Args:
            which: a bool mask [n_latents], or original latent ids in any order.

        Raises:
            ValueError: the mask has another length, an id is unknown, or the selection is empty.
        """
        rows = self._rows(which)
        if rows.numel() == 0:
            raise ValueError(f"the selection contains none of the {counted(self.n_latents, 'latent')} of {self.name!r}")

        per_latent = {name: getattr(self, name) for name in _PER_LATENT}
        picked: dict[str, Any] = {name: t[rows.to(t.device)] for name, t in per_latent.items() if t is not None}
        labels = None if self.labels is None else self.labels.select(picked["latent_ids"].numpy())
        return replace(self, labels=labels, **picked)

    def keep_alive(self) -> Dictionary:
        """Return the dictionary without the latents known to be dead, or the same dictionary if there are none.

        Raises:
            ValueError: every latent is known to be dead.
        """
        if self.alive_mask is None or bool(self.alive_mask.all()):
            return self
        if not bool(self.alive_mask.any()):
            raise ValueError(
                f"all {counted(self.n_latents, 'latent')} of {self.name!r} are dead according to {self.alive.source}; "
                'load it with latents="all" (--latents all) to keep them'
            )
        dropped = int((~self.alive_mask).sum())
        kept = self.select(self.alive_mask)
        return replace(kept, alive=replace(self.alive, n_dropped_dead=self.alive.n_dropped_dead + dropped))

    def folded(self) -> Dictionary:
        """Return the dictionary with decoder rows multiplied, and encoder rows divided, by the latents' thresholds.

        The SAE still computes the same function, and every threshold becomes 1, so that norms of different layers can
        be compared (SAE Match, Balagansky et al. 2024). Directions do not change.

        Raises:
            ValueError: the thresholds are unknown or not positive.
        """
        if self.threshold is None:
            raise ValueError(
                f"{self.name!r} has no thresholds to fold (layout {self.layout or 'unknown'}); only JumpReLU SAEs have "
                "thresholds: leave out fold=True (--fold)"
            )
        bad = (~(self.threshold > 0)).nonzero().flatten()
        if len(bad):
            ids = [int(self.latent_ids[i]) for i in bad.tolist()]
            raise ValueError(
                f"{self.name!r} has thresholds that are not positive and cannot be folded: latents {some_ids(ids)}; "
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
        """Return the dictionary with these labels joined to its own. Labels never change a similarity.

        If no frequency is known, a `density` of every latent becomes the frequency; a latent with a density of 0 is
        then dead, unless an `alive_mask` says otherwise.

        Raises:
            ValueError: an id is too large for the dictionary's file, or no latent of the dictionary is labeled.
        """
        ids, own = labels.frame.index, self.latent_ids.numpy()
        source = next(iter(labels.sources.values()), "the table")
        if len(ids) and int(ids.max()) >= self.alive.n_total:
            raise ValueError(
                f"{source} labels latents up to {int(ids.max()):,}, but {self.name!r} has ids "
                f"0…{self.alive.n_total - 1:,}: the labels belong to another dictionary"
            )
        mine = labels.select(own)
        if mine.frame.empty:
            raise ValueError(f"{source} labels none of the {counted(self.n_latents, 'latent')} of {self.name!r}")
        there = replace(self, labels=mine if self.labels is None else self.labels.joined(mine))
        density = mine.for_ids(own).get("density")
        if density is None or self.frequency is not None:
            return there
        if n_missing := int(density.isna().sum()):
            note = f"{source} lacks the density of {counted(n_missing, 'latent')}, so all frequencies stay unknown"
            return replace(there, notes=(*self.notes, note))
        frequency = shares(density.to_numpy(dtype=np.float64, copy=True), self.n_latents)
        if self.alive_mask is not None:
            return replace(there, frequency=frequency)
        n_dead = int((frequency == 0).sum())
        alive = replace(self.alive, source=f"density by {labels.sources['density']}", n_dead=n_dead)
        return replace(there, frequency=frequency, alive_mask=frequency > 0, alive=alive)

    def _rows(self, which: Any) -> Tensor:
        t = plain_tensor(which, "selection").cpu()
        if t.ndim != 1:
            raise ValueError(f"select takes a one-dimensional mask or list of ids; got shape {tuple(t.shape)}")
        if t.dtype == torch.bool:
            if t.shape[0] != self.n_latents:
                raise ValueError(f"the mask must have {self.n_latents:,} entries, one per latent; got {t.shape[0]:,}")
            return t.nonzero().flatten()
        if t.numel() and (t.is_floating_point() or t.is_complex()):
            raise ValueError(f"latent ids must be integers; got {t.dtype}")
        where = {int(latent): row for row, latent in enumerate(self.latent_ids.tolist())}
        missing = [int(i) for i in t.tolist() if int(i) not in where]
        if missing:
            raise ValueError(f"{self.name!r} has no latent {some_ids(missing)}")
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
