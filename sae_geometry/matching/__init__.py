"""Mutual, greedy and optimal one-to-one matchings of two dictionaries, from tensors to numpy arrays; see README.md."""

from sae_geometry.matching.assignment import Assignment, Step
from sae_geometry.matching.defaults import On, OneToOne
from sae_geometry.matching.forbidden import loss_if_forbidden
from sae_geometry.matching.match import match
from sae_geometry.matching.operands import operands
from sae_geometry.matching.shared import shared_curve
from sae_geometry.matching.verify import verify
