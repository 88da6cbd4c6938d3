"""The default criteria: the nine symptoms of a major depressive episode, in the project's own words."""

__all__ = ["DSM5_CRITERIA"]

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
