"""Columns of every saved table: their units and meanings.

Capitals in a name are placeholders: RUN and NAME stand for names, and K, T and L for numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

ID, COSINE, SHARE, COUNT = "latent id", "−1…1", "0…1", "count"
TEXT, TRUTH, POSITION = "text", "true, false", "coordinate"


class Column(NamedTuple):
    """Column of a saved table: its unit and meaning."""

    unit: str
    meaning: str


class Table(NamedTuple):
    """Saved table: its file, the commands that write it, and the meaning of its rows and columns."""

    file: str
    commands: tuple[str, ...]
    row: str
    columns: Mapping[str, Column]


_RUN = {
    "run": Column(TEXT, "name of the latent's dictionary"),
    "latent_id": Column(ID, "index of the latent in the checkpoint, regardless of dropped latents"),
}
_ACTIVITY = {
    "alive": Column(TRUTH, "whether the latent fires; empty where unknown"),
    "frequency": Column(SHARE, "share of tokens on which the latent fires; empty where unknown"),
}
_Q = Column(SHARE, "smallest false discovery rate at which the nearest partner is significant")
_NEAREST = {
    "partner_run": Column(TEXT, "name of the other dictionary"),
    "partner_id": Column(ID, "nearest latent of the other dictionary; several latents may share one partner"),
    "cosine": Column(COSINE, "signed cosine to the nearest partner, between the directions that were compared"),
    "mutual": Column(TRUTH, "whether the two latents are each other's nearest"),
    "q_value": _Q,
    "significant": Column(TRUTH, "whether q_value is at most 0.05"),
}
_MATCHES = (
    {"direction": Column(TEXT, "a_to_b: a latent of A with its partners in B; b_to_a: the reverse")}
    | _RUN
    | _NEAREST
    | {
        "plain_cosine": Column(COSINE, "cosine to the nearest partner before the linear map; only with a map"),
        "margin": Column("difference of similarities", "similarity to the nearest partner minus that to the next best"),
        "margin_of_partner": Column(
            "difference of similarities", "margin from the partner's side; negative if the partner has a closer latent"
        ),
        "one_to_one_partner_id": Column(ID, "partner in the one-to-one matching; −1 if there is none"),
        "one_to_one_cosine": Column(COSINE, "signed cosine to the one-to-one partner; empty if there is none"),
        "one_to_one_matching": Column(TEXT, "one-to-one matching: mutual, greedy or optimal"),
        "one_to_one_margin": Column("difference of similarities", "smaller of the one-to-one pair's two margins"),
        "one_to_one_loss_if_forbidden": Column(
            "sum of similarities", "lower bound on the decrease of the total without this pair; optimal matching only"
        ),
    }
    | _ACTIVITY
)
_BY_INDEX = {
    "run": Column(TEXT, "name of dictionary A"),
    "latent_id": Column(ID, "id of the latent in both dictionaries"),
    "partner_run": Column(TEXT, "name of dictionary B"),
    "partner_id": Column(ID, "same id, in dictionary B"),
    "cosine": Column(COSINE, "cosine of the two decoder directions with this id; empty if one is zero"),
    "norm_a": Column("norm, as stored", "norm of A's decoder row"),
    "norm_b": Column("norm, as stored", "norm of B's decoder row"),
    "relative_norm": Column(SHARE, "norm_b / (norm_a + norm_b): 0 only in A, 0.5 equal, 1 only in B"),
    "class": Column(TEXT, "only A, shared or only B, by relative_norm"),
    "nearest_in_b": Column(ID, "latent of B nearest to A's latent with this id; −1 if A's row is zero"),
    "nearest_in_b_cosine": Column(COSINE, "cosine to the latent nearest_in_b"),
    "nearest_in_a": Column(ID, "latent of A nearest to B's latent with this id; −1 if B's row is zero"),
    "nearest_in_a_cosine": Column(COSINE, "cosine to the latent nearest_in_a"),
}
_SHARED = {
    "a_id": Column(ID, "latent of A"),
    "b_id": Column(ID, "one-to-one partner in B"),
    "cosine": Column(COSINE, "signed cosine of the pair"),
    "q_value": Column(SHARE, "larger of the pair's two q-values, one per direction"),
    "mutual": _NEAREST["mutual"],
}
_ONLY = {
    "latent_id": Column(ID, "latent without a one-to-one partner above the threshold"),
    "nearest_id": Column(ID, "nearest latent in the other dictionary"),
    "nearest_cosine": Column(COSINE, "signed cosine to the nearest latent"),
    "q_value": _Q,
    "one_to_one_cosine": Column(COSINE, "signed cosine to the one-to-one partner; empty if there is none"),
    "frequency": _ACTIVITY["frequency"],
}
_PAIRS = {
    "source": Column(TEXT, "name of the run whose latents are matched"),
    "target": Column(TEXT, "name of the run in which partners are sought"),
    **{
        f"{side}_{what}": Column(unit, f"{meaning} of the {side}")
        for side in ("source", "target")
        for what, unit, meaning in (
            ("kind", TEXT, "training kind, such as local or e2e,"),
            ("layer", "layer", "layer in the hook point"),
            ("seed", TEXT, "training seed"),
            ("group", TEXT, "kind, with the layer if there are several,"),
        )
    },
    "mmcs": Column(COSINE, "mean over the source of the similarity to the nearest latent of the target"),
    "chance": Column(COSINE, "null expectation of `mmcs`, computed against the turned target"),
    "chance_isotropic": Column(COSINE, "null expectation of `mmcs`, against the same number of isotropic directions"),
    "own": Column(COSINE, "mean similarity of the source's latents to their nearest other latent in the source"),
    "chance_adjusted": Column("at most 1", "(mmcs − chance) / (1 − chance): 0 at chance, 1 at identity"),
    "significant": Column(SHARE, "share of the source's latents with a significant nearest latent"),
    "beyond_controls": Column("at most 1", "lower bound on the share that no control explains: 2 × wins − 1"),
    "nearest_above": Column(SHARE, "share of the source's latents whose nearest is above the threshold"),
    "nearest_above_chance": Column(SHARE, "null expectation of `nearest_above`, computed against the turned target"),
    "shared": Column(SHARE, "share of the source's latents whose one-to-one partner is above the threshold"),
    "shared_by_both": Column(
        SHARE,
        "share of latents whose decoder and encoder partners are above the threshold; empty if a run has no encoder",
    ),
    "same_partner": Column(SHARE, "share of the source's latents with the same partner by decoder and by encoder"),
    "paired": Column(COSINE, "mean similarity of the one-to-one pairs; PW-MCC if the matching is optimal"),
    "paired_chance": Column(COSINE, "null expectation of `paired`, computed with one turned run"),
    "matching": Column(TEXT, "one-to-one matching: greedy, mutual or optimal"),
    "n_source": Column(COUNT, "number of latents of the source"),
    "n_target": Column(COUNT, "number of latents of the target"),
    "confounds": Column(TEXT, "flagged checks of the confound audit, separated by semicolons"),
}
_CONSENSUS = {
    "group": Column("number", "number that identifies the group"),
    "n_runs": Column(COUNT, "number of runs in which the group has a latent"),
    "mean_similarity": Column(COSINE, "mean similarity over the pairs in the group"),
    "lowest_similarity": Column(COSINE, "lowest similarity over the pairs in the group"),
    "RUN": Column(ID, "one column per run: the run's latent in the group; −1 if there is none"),
}
_ORPHANS = _RUN | {
    "significant_in": Column(
        COUNT, "number of other runs in which the nearest latent is significant, at any similarity"
    )
}
_AGREEMENT = _RUN | {
    "partner_run": _NEAREST["partner_run"],
    "partner_id": Column(ID, "latent with the nearest decoder direction in the other dictionary"),
    "decoder_cosine": Column(COSINE, "decoder cosine to partner_id"),
    "encoder_cosine": Column(COSINE, "encoder cosine to partner_id"),
    "q_value": _Q,
    "significant": Column(TRUTH, "whether q_value is at most 0.05"),
    "encoder_partner_id": Column(ID, "latent with the nearest encoder direction in the other dictionary"),
    "encoder_own_cosine": Column(COSINE, "encoder cosine to the nearest encoder direction"),
    "encoder_q_value": Column(SHARE, "smallest false discovery rate at which the nearest encoder is significant"),
    "same_partner": Column(TRUTH, "whether the partners by decoder and by encoder are the same latent"),
    "group": Column(TEXT, "both high, encoder only, decoder only or both low, by the threshold"),
    "alignment": Column(COSINE, "cosine of the latent's own encoder and decoder; empty if their spaces differ"),
    "frequency": _ACTIVITY["frequency"],
}
_SPAN = _RUN | {
    "explained_K": Column(SHARE, "share of the direction in the span of B's K latents nearest by absolute cosine")
}
_SPLIT = {
    "wide_id": Column(ID, "latent of the wide dictionary"),
    "parent_id": Column(ID, "nearest latent in the narrow dictionary"),
    "cosine": Column(COSINE, "cosine to parent_id"),
    "q_value": _Q,
    "role": Column(TEXT, "child of parent_id, or novel"),
    "n_siblings": Column(COUNT, "children of the latent's parent, including itself; 0 for a novel latent"),
}
_PARENTS = {
    "narrow_id": Column(ID, "latent of the narrow dictionary"),
    "n_children": Column(COUNT, "number of children in the wide dictionary"),
    "n_absorbing": Column(COUNT, "number of the combination's terms that are children of another narrow latent"),
    "nearest_wide_id": Column(ID, "nearest latent in the wide dictionary"),
    "nearest_cosine": Column(COSINE, "cosine to nearest_wide_id"),
    "term_T_id": Column(ID, "wide latent of term T of the sparse combination; −1 after the pursuit has ended"),
    "term_T_coefficient": Column(
        "number", "coefficient of term T if all terms are used; 0 after the pursuit has ended"
    ),
    "explained_T": Column(SHARE, "share of the direction explained by the first T terms"),
}
_DRIFT = {
    "latent_id": Column(ID, "index by which the latent is followed through the checkpoints"),
    "checkpoint": Column(TEXT, "label of the checkpoint"),
    "samples": Column(COUNT, "training samples at the checkpoint, from its name; −1 if the name has none"),
    "cosine_to_final": Column(COSINE, "cosine to the latent's own final direction"),
    "cosine_to_next": Column(COSINE, "cosine to its direction in the next checkpoint; empty in the last"),
    "birth": Column(TEXT, "checkpoint at which cosine_to_final reaches the threshold for good"),
    "death": Column(TEXT, "first checkpoint after which the latent no longer moves; empty if it moves to the end"),
    "alive": _ACTIVITY["alive"],
}
_HITS = {
    "vector": Column(TEXT, "name of the dictionary or file of vectors"),
    "vector_id": Column(ID, "row of the vector in that file, or the latent's id"),
    "rank": Column("1, 2, …", "1 for the nearest latent"),
    "run": Column(TEXT, "name of the dictionary that the latent belongs to"),
    "latent_id": Column(ID, "latent of this rank"),
    "cosine": Column(COSINE, "signed cosine of vector and latent"),
    "plain_cosine": Column(COSINE, "cosine before the linear map; only if both sides were mapped"),
    "p_value": Column(SHARE, "share of random turns in which any latent is as close; empty if there are none"),
    "address": Column(TEXT, "address of the dictionary"),
    "link": Column("URL", "the latent's page on Neuronpedia; empty where unknown"),
}
_EDGES = {
    "step": Column("0, 1, …", "0 for edges between the first two layers, and so on"),
    "run": Column(TEXT, "name of the earlier layer's dictionary"),
    "latent_id": Column(ID, "latent of the earlier layer"),
    "next_run": Column(TEXT, "name of the later layer's dictionary"),
    "next_latent_id": Column(ID, "latent of the later layer"),
    "cosine": Column(COSINE, "cosine of the edge's two latents"),
    "q_value": Column(SHARE, "smallest false discovery rate at which the edge is significant"),
    "kind": Column(TEXT, "continues (one-to-one), splits (from the nearest before) or merges (into the nearest after)"),
    "norm_ratio": Column("ratio", "decoder norm of the later latent over that of the earlier"),
    "plain_cosine": Column(COSINE, "with --map: the cosine without the map"),
    "folded_mse": Column("squared norm, per dimension", "with --fold: ‖x − y‖² / d of the decoder rows as stored"),
}
_CHAINS = {
    "chain": Column("number", "number that identifies the chain"),
    "first_layer": Column("0, 1, …", "position of the first layer"),
    "last_layer": Column("0, 1, …", "position of the last layer"),
    "n_layers": Column(COUNT, "number of layers of the chain"),
    "begins": Column(TEXT, "how the chain begins: first layer, born or splits off"),
    "ends": Column(TEXT, "how the chain ends: last layer, dies or merges"),
    "turned": Column("degrees", "sum of the angles of the chain's edges"),
    "turned_net": Column("degrees", "angle between the first and the last decoder direction"),
    "latent_L": Column(ID, "one column per layer: the chain's latent at position L; −1 outside the chain"),
}
_TOKENS = {
    "latent_id": _RUN["latent_id"],
    "tokens": Column("JSON list", "tokens whose logits the decoder direction raises most, largest first"),
    "logits": Column("JSON list", "logits of these tokens for the unit direction"),
    "negative_tokens": Column("JSON list", "tokens whose logits the direction lowers most, most negative first"),
    "negative_logits": Column("JSON list", "logits of the negative tokens"),
    "token_cosine": Column(COSINE, "cosine to the nearest token's direction"),
    "turned_token_cosine": Column(COSINE, "null expectation of `token_cosine`, from the turned latent"),
    "readable": Column(TRUTH, "whether readable_q is at most 0.05"),
    "readable_q": Column(SHARE, "smallest false discovery rate at which the latent is readable"),
}
_PARTNERS = {
    "max_cosine": Column(COSINE, "cosine to the nearest latent of partner_run"),
    "partner_id": Column(ID, "latent of partner_run with the largest cosine"),
    "mutual": _NEAREST["mutual"],
    "one_to_one_partner_id": Column(ID, "one-to-one partner in partner_run; empty if there is none"),
    "one_to_one_cosine": Column(COSINE, "cosine to the one-to-one partner; empty if there is none"),
    "q_value": _Q,
}
_UMAP = (
    _RUN
    | {
        "x": Column(POSITION, "horizontal position in the layout; it has no unit"),
        "y": Column(POSITION, "vertical position in the layout; it has no unit"),
        "partner_run": Column(TEXT, "run in which the latent has its largest cosine; only with several runs"),
    }
    | _PARTNERS
    | {f"{name}:RUN": Column(c.unit, f"{name} in RUN; empty for RUN's own latents") for name, c in _PARTNERS.items()}
    | _ACTIVITY
    | {
        "region": Column(TEXT, "letter of the region; empty outside all regions"),
        "projected": Column(TRUTH, "whether the latent was placed into an existing layout; only from project"),
    }
)
_NEURONPEDIA = {
    "RunType": Column(TEXT, "name of the run"),
    "EmbeddingIndex": _RUN["latent_id"],
    "X": _UMAP["x"],
    "Y": _UMAP["y"],
}
_LASSO = {
    name: _UMAP[name]
    for name in (
        "run", "latent_id", "x", "y", "region", "frequency", "partner_run", "partner_id", "max_cosine", "mutual",
        "one_to_one_partner_id", "one_to_one_cosine",
    )
} | {
    "by_chance": Column(COSINE, "null expectation of the mean of `max_cosine`, against the turned partner_run"),
    "significant": _NEAREST["significant"],
    "tokens": Column(TEXT, "top tokens of the latent; only with labels"),
    "explanation": Column(TEXT, "explanation of the latent; only with labels"),
}  # fmt: skip

TABLES = (
    Table("matches.parquet", ("compare", "match", "truth"), "latent and direction", _MATCHES),
    Table(
        "matches.parquet", ("within",), "latent; the partner is the nearest other latent", _RUN | _NEAREST | _ACTIVITY
    ),
    Table("shared.csv", ("compare", "match"), "one-to-one pair above the threshold, most similar first", _SHARED),
    Table("only-a.csv", ("compare", "match"), "latent of A that is not shared, least similar first", _ONLY),
    Table("only-b.csv", ("compare", "match"), "latent of B that is not shared, least similar first", _ONLY),
    Table("by_index.parquet", ("compare --pairing index",), "id", _BY_INDEX),
    Table("pairs.parquet", ("seeds",), "ordered pair of runs", _PAIRS),
    Table("consensus.parquet", ("seeds",), "group of latents that are partners across runs", _CONSENSUS),
    Table("orphans.parquet", ("seeds",), "latent outside all consensus groups", _ORPHANS),
    Table("agreement.parquet", ("agreement",), "latent of A", _AGREEMENT),
    Table("span.parquet", ("span",), "latent of A without a one-to-one partner above the threshold", _SPAN),
    Table("split.parquet", ("split",), "latent of the wide dictionary", _SPLIT),
    Table("parents.parquet", ("split",), "latent of the narrow dictionary", _PARENTS),
    Table("drift.parquet", ("drift",), "latent and checkpoint", _DRIFT),
    Table("nearest.parquet", ("nearest",), "vector and rank", _HITS),
    Table("edges.parquet", ("flow",), "edge between two layers", _EDGES),
    Table("chains.parquet", ("flow",), "chain of one-to-one edges through the layers", _CHAINS),
    Table("tokens.parquet", ("tokens",), "latent", _TOKENS),
    Table(
        "tokens.csv",
        ("tokens",),
        "latent, most readable first; tokens as text on one line",
        {
            name: c._replace(unit=TEXT) if c.unit == "JSON list" else c
            for name, c in _TOKENS.items()
            if not name.endswith("logits")
        },
    ),
    Table("umap.parquet", ("umap", "project"), "latent", _UMAP),
    Table("neuronpedia.csv", ("umap", "project"), "latent, in Neuronpedia's format", _NEURONPEDIA),
    Table("latents.csv", ("explorer",), "latent selected with the lasso", _LASSO),
)
LABELS = {
    "tokens": Column("JSON list", "tokens whose logits the latent raises most, largest first"),
    "readable": Column(TRUTH, "whether the latent is nearer to a token than chance explains"),
    "explanation": Column(TEXT, "explanation of the latent"),
    "density": Column(SHARE, "share of tokens on which the latent fires, according to the source of the labels"),
    "label:NAME": Column("as given", "the column NAME of your own table of labels"),
    "label": Column(TEXT, "in the CSV lists: explanation and tokens on one line"),
    "token_overlap": Column(SHARE, "share of top tokens that the two latents have in common"),
    "logit_cosine": Column(COSINE, "cosine of the two directions' effects on the logits"),
}


def columns_of(file: str) -> dict[str, Column]:
    """Return the columns of every table with this file name, and the label columns of its lists."""
    own = {name: c for table in TABLES if table.file == file for name, c in table.columns.items()}
    return own | {f"{prefix}label": LABELS["label"] for prefix in ("", "partner_", "nearest_")}
