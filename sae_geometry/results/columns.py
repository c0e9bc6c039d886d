"""Columns of every saved table: their units and meanings.

Names in capitals stand for what differs between results: RUN and NAME for a name, K, T and L for a number.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

ID, COSINE, SHARE, COUNT = "latent id", "−1…1", "0…1", "count"
TEXT, TRUTH, POSITION = "text", "true, false", "coordinate"


class Column(NamedTuple):
    """Unit and meaning of a column."""

    unit: str
    meaning: str


class Table(NamedTuple):
    """A saved table: its file, the commands that write it, and what its rows and columns are."""

    file: str
    commands: tuple[str, ...]
    row: str
    columns: Mapping[str, Column]


_RUN = {
    "run": Column(TEXT, "name of the latent's dictionary"),
    "latent_id": Column(ID, "the latent: its index in the checkpoint, whatever was dropped"),
}
_ACTIVITY = {
    "alive": Column(TRUTH, "whether the latent fires; empty where unknown"),
    "frequency": Column(SHARE, "share of tokens on which the latent fires; empty where unknown"),
}
_Q = Column(SHARE, "smallest false discovery rate at which the nearest partner is significant")
_NEAREST = {
    "partner_run": Column(TEXT, "name of the other dictionary"),
    "partner_id": Column(ID, "the nearest latent of the other dictionary; several latents may share one"),
    "cosine": Column(COSINE, "signed cosine to the nearest, in the directions that were compared"),
    "mutual": Column(TRUTH, "whether each of the two is the nearest of the other"),
    "q_value": _Q,
    "significant": Column(TRUTH, "q_value of at most 0.05"),
}
_MATCHES = (
    {"direction": Column(TEXT, "a_to_b: a latent of A with its partners in B; b_to_a: the reverse")}
    | _RUN
    | _NEAREST
    | {
        "plain_cosine": Column(COSINE, "cosine to the nearest before the linear map; only after one"),
        "margin": Column("difference of similarities", "nearest partner minus the latent's best other candidate"),
        "margin_of_partner": Column(
            "difference of similarities", "the same seen from the partner: negative where it has a closer latent"
        ),
        "one_to_one_partner_id": Column(ID, "partner in the one-to-one matching; −1 without one"),
        "one_to_one_cosine": Column(COSINE, "signed cosine to that partner; empty without one"),
        "one_to_one_matching": Column(TEXT, "mutual, greedy or optimal"),
        "one_to_one_margin": Column("difference of similarities", "smaller margin of the one-to-one pair, of both"),
        "one_to_one_loss_if_forbidden": Column(
            "sum of similarities", "lower bound on the fall of the optimal total without this pair; optimal only"
        ),
    }
    | _ACTIVITY
)
_BY_INDEX = {
    "run": Column(TEXT, "name of dictionary A"),
    "latent_id": Column(ID, "the id that both dictionaries have"),
    "partner_run": Column(TEXT, "name of dictionary B"),
    "partner_id": Column(ID, "the same id, of dictionary B"),
    "cosine": Column(COSINE, "cosine of the two decoder directions of this id; empty where one is zero"),
    "norm_a": Column("norm, as stored", "norm of A's decoder row"),
    "norm_b": Column("norm, as stored", "norm of B's decoder row"),
    "relative_norm": Column(SHARE, "norm_b / (norm_a + norm_b): 0 only in A, 0.5 equal, 1 only in B"),
    "class": Column(TEXT, "only A, shared or only B, by relative_norm"),
    "nearest_in_b": Column(ID, "nearest latent of B to A's latent of this id; −1 where A's row is zero"),
    "nearest_in_b_cosine": Column(COSINE, "cosine to that latent"),
    "nearest_in_a": Column(ID, "nearest latent of A to B's latent of this id; −1 where B's row is zero"),
    "nearest_in_a_cosine": Column(COSINE, "cosine to that latent"),
}
_SHARED = {
    "a_id": Column(ID, "latent of A"),
    "b_id": Column(ID, "its one-to-one partner in B"),
    "cosine": Column(COSINE, "signed cosine of the two"),
    "q_value": Column(SHARE, "larger q-value of the pair, of both directions"),
    "mutual": Column(TRUTH, "whether each of the two is the nearest of the other"),
}
_ONLY = {
    "latent_id": Column(ID, "latent without a one-to-one partner above the threshold"),
    "nearest_id": Column(ID, "its nearest latent in the other dictionary"),
    "nearest_cosine": Column(COSINE, "signed cosine to the nearest"),
    "q_value": _Q,
    "one_to_one_cosine": Column(COSINE, "signed cosine to its one-to-one partner; empty without one"),
    "frequency": _ACTIVITY["frequency"],
}
_PAIRS = {
    "source": Column(TEXT, "name of the run whose latents look for partners"),
    "target": Column(TEXT, "name of the run in which they look"),
    **{
        f"{side}_{what}": Column(unit, f"{meaning} of the {side}")
        for side in ("source", "target")
        for what, unit, meaning in (
            ("kind", TEXT, "training kind, such as local or e2e,"),
            ("layer", "layer", "layer in the hook point"),
            ("seed", TEXT, "training seed"),
            ("group", TEXT, "kind, with the layer where there are several,"),
        )
    },
    "mmcs": Column(COSINE, "mean over the source of the similarity to the nearest latent of the target"),
    "chance": Column(COSINE, "mmcs expected by chance: against the target turned"),
    "chance_isotropic": Column(COSINE, "mmcs expected against as many isotropic directions"),
    "own": Column(COSINE, "mean similarity of the source's latents to their nearest other latent in the source"),
    "chance_adjusted": Column("at most 1", "(mmcs − chance) / (1 − chance): 0 at chance, 1 at identity"),
    "significant": Column(SHARE, "share of the source with a significant nearest latent"),
    "beyond_controls": Column("at most 1", "2 × wins − 1: lower bound on the share that no control explains"),
    "nearest_above": Column(SHARE, "share of the source whose nearest is above the threshold"),
    "nearest_above_chance": Column(SHARE, "the same against the target turned"),
    "shared": Column(SHARE, "share of the source whose one-to-one partner is above the threshold"),
    "shared_by_both": Column(SHARE, "the same in the decoder and in the encoder; empty without encoders"),
    "same_partner": Column(SHARE, "share of the source with the same partner by decoder and by encoder"),
    "paired": Column(COSINE, "mean similarity of the one-to-one pairs; PW-MCC where the matching is optimal"),
    "paired_chance": Column(COSINE, "paired expected by chance: against one run turned"),
    "matching": Column(TEXT, "one-to-one matching: greedy, mutual or optimal"),
    "n_source": Column(COUNT, "latents of the source"),
    "n_target": Column(COUNT, "latents of the target"),
    "confounds": Column(TEXT, "flagged checks of the confound audit, separated by semicolons"),
}
_CONSENSUS = {
    "group": Column("number", "number of the group"),
    "n_runs": Column(COUNT, "runs in which the group has a latent"),
    "mean_similarity": Column(COSINE, "mean similarity over the pairs of the group"),
    "lowest_similarity": Column(COSINE, "smallest similarity of a pair of the group"),
    "RUN": Column(ID, "one column per run: its latent in the group, −1 without one"),
}
_ORPHANS = _RUN | {
    "significant_in": Column(COUNT, "other runs in which its nearest latent is significant, at any similarity")
}
_AGREEMENT = _RUN | {
    "partner_run": _NEAREST["partner_run"],
    "partner_id": Column(ID, "the nearest decoder direction of the other dictionary"),
    "decoder_cosine": Column(COSINE, "decoder cosine to that partner"),
    "encoder_cosine": Column(COSINE, "encoder cosine to the same partner"),
    "q_value": _Q,
    "significant": Column(TRUTH, "q_value of at most 0.05"),
    "encoder_partner_id": Column(ID, "the nearest encoder direction of the other dictionary"),
    "encoder_own_cosine": Column(COSINE, "encoder cosine to the nearest encoder direction"),
    "encoder_q_value": Column(SHARE, "smallest false discovery rate at which the nearest encoder is significant"),
    "same_partner": Column(TRUTH, "whether both partners are the same latent"),
    "group": Column(TEXT, "both high, encoder only, decoder only or both low, by the threshold"),
    "alignment": Column(COSINE, "cosine of the latent's own encoder and decoder; empty in different spaces"),
    "frequency": _ACTIVITY["frequency"],
}
_SPAN = _RUN | {"explained_K": Column(SHARE, "share of the direction within the span of the K nearest lines of B")}
_SPLIT = {
    "wide_id": Column(ID, "latent of the wide dictionary"),
    "parent_id": Column(ID, "its nearest latent in the narrow dictionary"),
    "cosine": Column(COSINE, "cosine of the two"),
    "q_value": _Q,
    "role": Column(TEXT, "child of that parent, or novel"),
    "n_siblings": Column(COUNT, "children of its parent, itself included; 0 for a novel latent"),
}
_PARENTS = {
    "narrow_id": Column(ID, "latent of the narrow dictionary"),
    "n_children": Column(COUNT, "children in the wide dictionary"),
    "n_absorbing": Column(COUNT, "terms of its sparse combination that are children of another narrow latent"),
    "nearest_wide_id": Column(ID, "its nearest latent in the wide dictionary"),
    "nearest_cosine": Column(COSINE, "cosine of the two"),
    "term_T_id": Column(ID, "wide latent of term T of the sparse combination; −1 where the pursuit has ended"),
    "term_T_coefficient": Column("number", "coefficient of term T, among all terms; 0 where there is none"),
    "explained_T": Column(SHARE, "share of the direction explained by the first T terms"),
}
_DRIFT = {
    "latent_id": Column(ID, "the latent, followed by its index"),
    "checkpoint": Column(TEXT, "label of the checkpoint"),
    "samples": Column(COUNT, "training samples at the checkpoint, from its name; −1 where it has none"),
    "cosine_to_final": Column(COSINE, "cosine to the latent's own final direction"),
    "cosine_to_next": Column(COSINE, "cosine to its direction in the next checkpoint; empty in the last"),
    "birth": Column(TEXT, "checkpoint from which on cosine_to_final stays at or above the threshold"),
    "death": Column(TEXT, "checkpoint from which on the latent does not move; empty if it moves to the end"),
    "alive": _ACTIVITY["alive"],
}
_HITS = {
    "vector": Column(TEXT, "name of the dictionary or file of vectors"),
    "vector_id": Column(ID, "the vector: its row there, or the latent's id"),
    "rank": Column("1, 2, …", "1 for the nearest latent"),
    "run": Column(TEXT, "name of the dictionary of the latent found"),
    "latent_id": Column(ID, "the latent found"),
    "cosine": Column(COSINE, "signed cosine of the two"),
    "plain_cosine": Column(COSINE, "cosine before the linear map; only where both were mapped"),
    "p_value": Column(SHARE, "share of turns of every dictionary in which any latent is as close; empty without turns"),
    "address": Column(TEXT, "address of the dictionary"),
    "link": Column("URL", "the latent's page on Neuronpedia; empty where unknown"),
}
_EDGES = {
    "step": Column("0, 1, …", "0 between the first two layers, and so on"),
    "run": Column(TEXT, "name of the earlier layer's dictionary"),
    "latent_id": Column(ID, "latent of the earlier layer"),
    "next_run": Column(TEXT, "name of the later layer's dictionary"),
    "next_latent_id": Column(ID, "latent of the later layer"),
    "cosine": Column(COSINE, "cosine of the two"),
    "q_value": Column(SHARE, "smallest false discovery rate at which the edge is significant"),
    "kind": Column(TEXT, "continues: one-to-one; splits: from the nearest before; merges: into the nearest after"),
    "norm_ratio": Column("ratio", "decoder norm of the later latent over that of the earlier"),
    "plain_cosine": Column(COSINE, "with --map: the cosine without the map"),
    "folded_mse": Column("squared norm, per dimension", "with --fold: ‖x − y‖² / d of the decoder rows as stored"),
}
_CHAINS = {
    "chain": Column("number", "number of the chain"),
    "first_layer": Column("0, 1, …", "position of the first layer"),
    "last_layer": Column("0, 1, …", "position of the last layer"),
    "n_layers": Column(COUNT, "layers of the chain"),
    "begins": Column(TEXT, "first layer, born or splits off"),
    "ends": Column(TEXT, "last layer, dies or merges"),
    "turned": Column("degrees", "sum of the angles of its edges"),
    "turned_net": Column("degrees", "angle between its first and its last decoder direction"),
    "latent_L": Column(ID, "one column per layer: its latent at position L, −1 outside the chain"),
}
_TOKENS = {
    "latent_id": _RUN["latent_id"],
    "tokens": Column("JSON list", "tokens whose logits the decoder direction raises most, largest first"),
    "logits": Column("JSON list", "logits of these tokens for the unit direction"),
    "negative_tokens": Column("JSON list", "tokens whose logits it lowers most, most negative first"),
    "negative_logits": Column("JSON list", "logits of these tokens"),
    "token_cosine": Column(COSINE, "cosine to the nearest token's direction"),
    "turned_token_cosine": Column(COSINE, "the same for the dictionary turned"),
    "readable": Column(TRUTH, "readable_q of at most 0.05"),
    "readable_q": Column(SHARE, "smallest false discovery rate at which the latent is readable"),
}
_PARTNERS = {
    "max_cosine": Column(COSINE, "cosine to the nearest latent of partner_run"),
    "partner_id": Column(ID, "the nearest latent of partner_run"),
    "mutual": Column(TRUTH, "whether each of the two is the nearest of the other"),
    "one_to_one_partner_id": Column(ID, "one-to-one partner in partner_run; empty without one"),
    "one_to_one_cosine": Column(COSINE, "cosine to that partner; empty without one"),
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
        "region": Column(TEXT, "letter of the region; empty outside every region"),
        "projected": Column(TRUTH, "whether the latent was placed into the layout; only from project"),
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
    "by_chance": Column(COSINE, "mean of max_cosine expected by chance in partner_run"),
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
    Table("only-a.csv", ("compare", "match"), "latent of A without such a partner, least similar first", _ONLY),
    Table("only-b.csv", ("compare", "match"), "latent of B without such a partner, least similar first", _ONLY),
    Table("by_index.parquet", ("compare --pairing index",), "id", _BY_INDEX),
    Table("pairs.parquet", ("seeds",), "ordered pair of runs", _PAIRS),
    Table("consensus.parquet", ("seeds",), "group of latents that are partners in several runs", _CONSENSUS),
    Table("orphans.parquet", ("seeds",), "latent in no group", _ORPHANS),
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
    Table("latents.csv", ("explorer",), "latent that the lasso caught", _LASSO),
)
LABELS = {
    "tokens": Column("JSON list", "tokens whose logits the latent raises most, largest first"),
    "readable": Column(TRUTH, "whether the latent is nearer to a token than chance explains"),
    "explanation": Column(TEXT, "explanation of the latent"),
    "density": Column(SHARE, "share of tokens on which the latent fires, by the source of the labels"),
    "label:NAME": Column("as given", "the column NAME of your own table of labels"),
    "label": Column(TEXT, "in the CSV lists: explanation and tokens on one line"),
    "token_overlap": Column(SHARE, "share of the two latents' top tokens that both have"),
    "logit_cosine": Column(COSINE, "cosine of the two directions' effects on the logits"),
}


def columns_of(file: str) -> dict[str, Column]:
    """Return the columns of every table with this file name, and the label columns of its lists."""
    own = {name: c for table in TABLES if table.file == file for name, c in table.columns.items()}
    return own | {f"{prefix}label": LABELS["label"] for prefix in ("", "partner_", "nearest_")}
