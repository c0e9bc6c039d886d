"""Message for a file that no layout fits: its tensors, and the call that reads it where that is clear."""

from __future__ import annotations

import re

from sae_geometry.io.escaping import shown
from sae_geometry.sources.files.tensor_file import TensorFile

_MAX_LISTED = 12
# These are never decoders, however large: encoders, biases, masks, gates, skips, mixing matrices, optimizer moments,
# activations and statistics, and halves of a decoder (weight norm, pruning, low rank).
_NO_DECODER = re.compile(
    r"enc|embed|bias|^b_|\.b_|mask|mix|gate|skip|thresh|exp_avg|momentum|optim|moment|scale|norm|mean|std|var|cov|attn"
    r"|activ|usage|count|freq|firing|logit|prob|score|simil|cosine|gram|corr|whiten|rotat|pca|proj|assign|lora|decay"
    r"|(?:^|[._])(?:in|to|input|extract(?:or)?|acts?|labels?|grads?|delta)(?:[._]|$)|weight_[gv]$|_orig$|original\d$"
    r"|(?:^|\.)(?:W_?E|E|W_?[QKV]|W|C|A|M)$",
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
    able = {k: e for k, e in flat.items() if not _NO_DECODER.search(k)}
    named = {k: e for k, e in able.items() if _DECODER.search(k)} or (able if len(flat) == 1 else {})
    if named:
        key = max(named, key=lambda k: named[k].n_bytes)
        axis = int(flat[key].shape[0] < flat[key].shape[1])
        return f"{says}; if {key!r} is the decoder, call {call.format(key, axis)}, {whether}"
    return (
        f"{says}; none of them is by its name a decoder (one that is tied to the encoder must be saved under a name of "
        f"its own): pass the decoder to sae_geometry.Dictionary.from_decoder(decoder, latent_axis=…), {whether}"
    )
