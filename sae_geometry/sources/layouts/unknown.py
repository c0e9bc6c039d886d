"""Message for a file that no layout fits: its tensors, and the call that reads it where that is clear."""

from __future__ import annotations

import re

from sae_geometry.io.escaping import shown
from sae_geometry.sources.files.tensor_file import TensorFile

_MAX_LISTED = 12
# These are never decoders, however large: encoders, biases, masks, gates, skips, mixing matrices, optimizer moments,
# activations and statistics, inverses and averages, and halves of a decoder (weight norm, pruning, low rank).
_NO_DECODER = re.compile(
    r"enc|embed|bias|^b_|\.b_|mask|mix|gate|skip|thresh|exp_avg|momentum|optim|moment|scale|norm|mean|std|var|cov|attn"
    r"|activ|usage|count|freq|firing|logit|prob|score|simil|cosine|gram|corr|whiten|rotat|pca|proj|assign|lora|decay"
    r"|avg|averag|inv|dead|init|detect|classif|recogni|rout|(?:^|[._])(?:in|to|input|extract(?:or)?|read(?:er)?s?|dual"
    r"|acts?|labels?|grads?|delta|ema|[mv]|keys?|quer(?:y|ies))(?:[._]|$)"
    r"|weight_[gv]$|_orig$|original\d$|(?:^|\.)(?:W_?E|E|W_?[QKV]|W|C|A|M)$",
    re.IGNORECASE,
)
_DECODER = re.compile(
    r"decod|(?:^|[._])w?dec(?:[._\d]|$)|dict|feature|direction|atom|codebook|concept|(?:^|\.)(?:W_?D|D)$", re.IGNORECASE
)


def unknown_layout(file: TensorFile) -> str:
    """Return a message that lists the tensors and proposes `Dictionary.from_decoder` with the one named as a decoder.

    Where the names are ambiguous, none is proposed: an encoder read as a decoder gives plausible but wrong numbers.
    """
    listed = [f"{shown(k, 80)} {list(e.shape)} {str(e.dtype).removeprefix('torch.')}" for k, e in file.entries.items()]
    listed += [f"{shown(k, 80)} of type {kind}, which torch does not have" for k, kind in file.unread.items()]
    holds = ", ".join(listed[:_MAX_LISTED])
    holds += f" and {len(listed) - _MAX_LISTED} more" if len(listed) > _MAX_LISTED else ""
    flat = {
        k: e for k, e in file.entries.items() if len(e.shape) == 2 and 0 not in e.shape and e.dtype.is_floating_point
    }
    name = file.path.name
    if not flat:
        wanted = "holds no decoder (two axes of floating-point numbers)" if holds else "holds no decoder"
        return f"{name} {wanted}: {holds or 'no tensors at all'}"
    says = f"no known layout fits {name}, which holds {holds}"
    call = "sae_geometry.Dictionary.from_decoder(tensors[{!r}], latent_axis={})"
    whether = "where latent_axis is the axis that counts latents"
    named = [k for k in flat if _DECODER.search(k) and not _NO_DECODER.search(k) and len(set(flat[k].shape)) == 2]
    if len(named) == 1:  # several may be parts, copies or layers of a decoder
        key, (rows, columns) = named[0], flat[named[0]].shape
        return f"{says}; if {key!r} is the decoder, call {call.format(key, int(rows < columns))}, {whether}"
    why = f"{len(named)} of them are by their names decoders, or parts of one"
    if not named:
        why = "none of them is by its name a decoder (one tied to the encoder must be saved under a name of its own)"
    return f"{says}; {why}: pass the decoder to sae_geometry.Dictionary.from_decoder(decoder, latent_axis=…), {whether}"
