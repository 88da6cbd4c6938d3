"""Commits of a study's encoders on the Hugging Face hub, resolved once, so that all trials train the same weights."""

from collections.abc import Mapping, Sequence
from typing import Any

from lightning_hpo.agents.text_agent import TextAgent
from lightning_hpo.config.flags import class_of, flags
from lightning_hpo.data.hub import resolve_revision
from lightning_hpo.exceptions import InputError

__all__ = ["NAME", "REVISION", "resolve_revisions"]

NAME = "model.name"
REVISION = "model.revision"


def resolve_revisions(
    config: Mapping[str, Any], choices: Mapping[str, Sequence[Any]], stored: Mapping[str, str]
) -> tuple[dict[str, str], list[str]]:
    """Download the encoders of a study, and return the commit of each by its hub id. Folders have no commit.

    Args:
        config: The config that every trial starts from.
        choices: Choices of the search space by flag.
        stored: Commits that an earlier call has resolved. They are kept, also if the branch has moved since.

    Returns:
        The commits, and one line for each problem.
    """
    if not issubclass(class_of(config["model"]), TextAgent):
        return {}, []
    values = flags(config)
    base, given = values[NAME], values.get(REVISION)
    names = list(dict.fromkeys((base, *choices.get(NAME, ()))))
    if given is not None and len(names) > 1:
        return {}, [
            f"--{REVISION}: got {given}, but the study has {len(names)} encoders; omit it, and each stays at its "
            "current commit of main"
        ]
    found: dict[str, str] = {}
    problems: list[str] = []
    for name in names:
        try:
            commit = resolve_revision(name, given or stored.get(name))
        except InputError as error:
            where = "" if name == base else f"search_space: with the encoder {name}: "
            problems += [where + line for line in error.problems]
            continue
        if commit is not None:
            found[name] = commit
            if stored.get(name, commit) != commit:
                problems.append(f"--{REVISION}: got {given}, but the study began with {stored[name]}; use that")
    return found, problems
