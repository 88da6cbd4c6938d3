"""Criteria: the nine symptoms of DSM-5, or those of a YAML file."""

from pathlib import Path

import yaml

from lightning_hpo.data.csv_table import check_readable
from lightning_hpo.exceptions import InputError, raise_problems

__all__ = ["DSM5_CRITERIA", "read_criteria"]

# In this project's own words, not those of DSM-5.
DSM5_CRITERIA: dict[str, str] = {
    "DEPRESSED_MOOD": "The writer feels sad, empty, hopeless or tearful for most of the day.",
    "ANHEDONIA": "The writer no longer finds interest or pleasure in things that used to be enjoyable.",
    "APPETITE_CHANGE": "The writer eats much more or much less than usual, or gains or loses weight without trying.",
    "SLEEP_ISSUES": "The writer cannot fall or stay asleep, or sleeps far too much.",
    "PSYCHOMOTOR": "The writer is restless and cannot sit still, or moves and speaks unusually slowly.",
    "FATIGUE": "The writer is tired and without energy, so that small tasks are exhausting.",
    "WORTHLESSNESS": "The writer feels worthless, or guilty beyond reason.",
    "COGNITIVE_ISSUES": "The writer has trouble thinking, concentrating, remembering or deciding.",
    "SUICIDAL_THOUGHTS": "The writer thinks about death, about not being alive, or about suicide.",
}
_FORM = "use `ID: text of the criterion`"


def read_criteria(path: str | Path | None) -> dict[str, str]:
    """Return text by criterion id, from a YAML file, or the nine symptoms of DSM-5 if no file is given.

    Raises:
        InputError: The file cannot be read or is not a mapping of ids to texts.
    """
    if path is None:
        return dict(DSM5_CRITERIA)
    check_readable(Path(path), flag="--data.criteria")
    try:
        node = yaml.compose(Path(path).read_bytes().decode("utf-8-sig"), Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise InputError(f"{path}{where}: not valid YAML; {_FORM}") from None
    if not isinstance(node, yaml.MappingNode) or not node.value:
        raise InputError(f"{path}: not a mapping; {_FORM}, one line for each criterion")
    return _criteria_of(node, path)


def _criteria_of(node: yaml.MappingNode, path: str | Path) -> dict[str, str]:
    """Return ids and texts as written. YAML's implicit types would turn the id `NO` into false."""
    criteria: dict[str, str] = {}
    problems = []
    for key, value in node.value:
        where = f"{path}, line {key.start_mark.line + 1}"
        if not isinstance(key, yaml.ScalarNode) or not isinstance(value, yaml.ScalarNode):
            problems.append(f"{where}: not an id and a text; {_FORM}")
        elif not key.value.strip() or not value.value.strip():
            problems.append(f"{where}: the id or the text is empty; {_FORM}")
        elif key.value in criteria:
            problems.append(f"{where}: this id occurs twice; keep one of them")
        else:
            criteria[key.value] = value.value
    raise_problems(problems)
    return criteria
