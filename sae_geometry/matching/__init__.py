"""One-to-one matchings of two dictionaries: mutual, greedy, optimal. Tensors in, numpy out; see README.md."""

from sae_geometry.matching.assignment import Assignment, Certificate, Progress, Step
from sae_geometry.matching.defaults import On, OneToOne
from sae_geometry.matching.match import match
from sae_geometry.matching.operands import operands
from sae_geometry.matching.shared import SharedCurve, same_partner, shared_curve, shared_latents
from sae_geometry.matching.verify import verify

__all__ = [
    "Assignment",
    "Certificate",
    "On",
    "OneToOne",
    "Progress",
    "SharedCurve",
    "Step",
    "match",
    "operands",
    "same_partner",
    "shared_curve",
    "shared_latents",
    "verify",
]
