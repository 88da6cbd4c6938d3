"""The two text agents."""

from lightning_hpo.agents.criteria import CriteriaAgent
from lightning_hpo.agents.evidence import EvidenceAgent

__all__ = ["CriteriaAgent", "EvidenceAgent"]
