"""The three text agents, their base class, and the settings that a config can set."""

from lightning_hpo.agents.criteria import CriteriaAgent
from lightning_hpo.agents.evidence import EvidenceAgent
from lightning_hpo.agents.joint import JointAgent
from lightning_hpo.agents.losses import Loss
from lightning_hpo.agents.network.heads import CriteriaHead, EvidenceHead
from lightning_hpo.agents.network.lora import Lora
from lightning_hpo.agents.optim.optimizers import Optim
from lightning_hpo.agents.optim.schedules import Schedule
from lightning_hpo.agents.spans.decoding import Decoding
from lightning_hpo.agents.text_agent import TextAgent

__all__ = [
    "CriteriaAgent",
    "CriteriaHead",
    "Decoding",
    "EvidenceAgent",
    "EvidenceHead",
    "JointAgent",
    "Lora",
    "Loss",
    "Optim",
    "Schedule",
    "TextAgent",
]
