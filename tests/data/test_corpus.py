from pathlib import Path

import pytest

from lightning_hpo.data.corpus import read_corpus
from lightning_hpo.data.pairs import Pair
from lightning_hpo.exceptions import InputError

from .conftest import WriteCsv

POSTS = [("post_id", "text"), ("a", "I am sad. Really."), ("b", "Fine here.\nAll  good."), ("c", "Nothing.")]
HEADER = ("post_id", "sentence_id", "sentence_text", "DSM5_symptom", "status", "explanation")


def _row(post: str, sentence: str, label: str, status: str) -> tuple[str, ...]:
    return (post, "x", sentence, label, status, "")


def test_repeats_and_conflicts_are_resolved_and_counted(write_csv: WriteCsv) -> None:
    rows = [
        HEADER,
        _row("a", "I am sad.", "DEPRESSED_MOOD", "0"),
        _row("a", "I am sad.", "DEPRESSED_MOOD", "1"),
        _row("a", "I am sad.", "DEPRESSED_MOOD", "1.0"),
        _row("a", "Really.", "DEPRESSED_MOOD", "0"),
        _row("a", "Really.", "FATIGUE", "0"),
        _row("b", "here. All good.", "FATIGUE", "1"),
        _row("b", "Gone.", "ANHEDONIA", " 1 "),
        _row("b", "Fine", "SPECIAL_CASE", "1"),
    ]
    corpus = read_corpus(write_csv("posts.csv", POSTS), write_csv("annotations.csv", rows))
    assert corpus.pairs == (
        Pair("a", "DEPRESSED_MOOD", True, ((0, 9),)),
        Pair("a", "FATIGUE", False),
        Pair("b", "FATIGUE", True, ((5, 21),)),
        Pair("b", "ANHEDONIA", True),
    )
    assert corpus.counts == {
        "repeated annotation rows": 2,
        "rows that contradict another, evidence wins": 1,
        "pairs with sentences of both labels, taken as met": 1,
        "evidence sentences found with other white space": 1,
        "evidence sentences not found in their post": 1,
        "rows left out (SPECIAL_CASE)": 1,
        "posts without annotation": 1,
    }
    assert corpus.posts["b"] == "Fine here.\nAll  good."


@pytest.mark.parametrize(
    ("sentence", "cause"),
    [
        ("the weather IS foul", ", but there in other upper or lower case"),
        ("Never written", None),
        ("It\u00e2\u20ac\u2122s foul", ", but there in another encoding"),
        ("the-weather-is-foul", ", but there with other punctuation, accents or white space"),
    ],
)
def test_lost_evidence_is_counted_with_its_cause(write_csv: WriteCsv, sentence: str, cause: str | None) -> None:
    posts = write_csv("posts.csv", [POSTS[0], ("a", "It\u2019s foul. The weather is foul. Yes.")])
    rows = [HEADER, _row("a", sentence, "FATIGUE", "1")]
    counts = read_corpus(posts, write_csv("annotations.csv", rows)).counts
    assert counts.pop("evidence sentences not found in their post") == 1
    assert counts == ({f"evidence sentences not found in their post{cause}": 1} if cause else {})


def test_sentence_that_occurs_twice_is_evidence_twice(write_csv: WriteCsv) -> None:
    posts = write_csv("posts.csv", [POSTS[0], ("a", "So sad. Hm. So sad.")])
    rows = [HEADER, _row("a", "So sad.", "DEPRESSED_MOOD", "1"), _row("a", "sad", "DEPRESSED_MOOD", "1")]
    corpus = read_corpus(posts, write_csv("annotations.csv", rows))
    assert corpus.pairs[0].spans == ((0, 7), (3, 6), (12, 19), (15, 18))
    assert corpus.counts == {"evidence sentences that occur more than once": 2}


def test_pairs_of_posts_include_unannotated_ones(write_csv: WriteCsv) -> None:
    rows = [HEADER, _row("a", "I am sad.", "DEPRESSED_MOOD", "1")]
    corpus = read_corpus(write_csv("posts.csv", POSTS), write_csv("annotations.csv", rows))
    pairs = corpus.pairs_of(("c", "a"))
    assert len(pairs) == 18
    assert [pair for pair in pairs if pair.met] == list(corpus.pairs)
    assert pairs[0].post_id == "c"


def test_label_is_mapped_left_out_or_an_error(write_csv: WriteCsv) -> None:
    posts = write_csv("posts.csv", POSTS)
    annotations = write_csv(
        "annotations.csv", [HEADER, _row("a", "I am sad.", "LEEP_ISSUES", "1"), _row("b", "Fine", "OTHER", "1")]
    )
    corpus = read_corpus(posts, annotations, aliases={"LEEP_ISSUES": "SLEEP_ISSUES"}, leave_out=["OTHER", "FATIGUE"])
    assert corpus.pairs == (Pair("a", "SLEEP_ISSUES", True, ((0, 9),)),)
    assert corpus.counts["labels mapped by --data.aliases"] == 1
    assert "FATIGUE" not in corpus.criteria
    with pytest.raises(InputError) as caught:
        read_corpus(posts, annotations)
    first, second = caught.value.problems
    assert first.startswith(f"{annotations}, line 2, column DSM5_symptom: 'LEEP_ISSUES' is not a criterion")
    assert "did you mean SLEEP_ISSUES?" in first
    assert "--data.aliases" in first
    assert "the criteria are DEPRESSED_MOOD" in second


def test_all_problems_are_reported_at_once_without_post_text(write_csv: WriteCsv) -> None:
    rows = [
        HEADER,
        _row("z", "I am sad.", "FATIGUE", "1"),
        _row("a", " ", "FATIGUE", "1"),
        _row("a", "I am sad.", "FATIGUE", "maybe"),
        _row("I am a secret", "so secret", "very secret", "secret sauce"),
    ]
    with pytest.raises(InputError) as caught:
        read_corpus(write_csv("posts.csv", POSTS), write_csv("annotations.csv", rows))
    columns = [problem.split(": ")[0].split("annotations.csv, ")[1] for problem in caught.value.problems]
    assert columns == [
        "line 2, column post_id",
        "line 3, column sentence_text",
        "line 4, column status",
        "line 5, column post_id",
        "line 5, column DSM5_symptom",
        "line 5, column status",
    ]
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("aliases", "leave_out", "words"),
    [
        (
            {"A": "FATIQUE"},
            [],
            "is mapped by --data.aliases to 'FATIQUE', which is not a criterion; did you mean FATIGUE",
        ),
        ({"X": "FATIGUE"}, ["X"], "is also in --data.leave_out"),
        ({}, ["A"], "removes every row"),
    ],
)
def test_contradictory_label_flags_are_errors(
    write_csv: WriteCsv, aliases: dict[str, str], leave_out: list[str], words: str
) -> None:
    annotations = write_csv("annotations.csv", [HEADER, _row("a", "I am sad.", "A", "1")])
    with pytest.raises(InputError, match=words):
        read_corpus(write_csv("posts.csv", POSTS), annotations, aliases=aliases, leave_out=leave_out)


def test_alias_that_no_row_uses_does_nothing(write_csv: WriteCsv, tmp_path: Path) -> None:
    criteria = tmp_path / "criteria.yaml"
    criteria.write_text("GRIEF: one\n")
    posts = write_csv("posts.csv", POSTS)
    annotations = write_csv("annotations.csv", [HEADER, _row("a", "I am sad.", "GRIEF", "1")])
    plain, mapped = (read_corpus(posts, annotations, criteria, aliases) for aliases in (None, {"LEEP": "SLEEP_ISSUES"}))
    assert plain.pairs == mapped.pairs
    assert plain.counts == mapped.counts


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        (["P1", "P2"], "upper and lower case"),
        (["p1 ", " p2"], "white space"),
        (["p1.0", "p2.0"], "decimal part"),
        (["q1", "q2"], "of the same corpus"),
    ],
)
def test_ids_that_no_post_has_are_counted_with_the_cause(write_csv: WriteCsv, ids: list[str], words: str) -> None:
    posts = write_csv("posts.csv", [POSTS[0], ("p1", "I am sad."), ("p2", "So sad.")])
    rows = [_row(post_id, "sad", "FATIGUE", "1") for post_id in ids]
    with pytest.raises(InputError) as caught:
        read_corpus(posts, write_csv("annotations.csv", [HEADER, *rows]))
    (line,) = caught.value.problems
    assert "none of its 2 rows has a post_id of --data.posts" in line
    assert words in line


@pytest.mark.parametrize("status", ["suicidal", "sad_day", "7"])
def test_error_about_a_status_does_not_show_it(write_csv: WriteCsv, status: str) -> None:
    posts = write_csv("posts.csv", POSTS)
    with pytest.raises(InputError) as caught:
        read_corpus(posts, write_csv("annotations.csv", [HEADER, _row("a", "I am sad.", "FATIGUE", status)]))
    (line,) = caught.value.problems
    assert line.endswith("line 2, column status: the status is neither 1 nor 0; use one of them")


def test_no_criteria_left_is_an_error(write_csv: WriteCsv, tmp_path: Path) -> None:
    criteria = tmp_path / "criteria.yaml"
    criteria.write_text("A: one\n")
    annotations = write_csv("annotations.csv", [HEADER, _row("a", "I am sad.", "A", "1")])
    with pytest.raises(InputError, match="removes every criterion"):
        read_corpus(write_csv("posts.csv", POSTS), annotations, criteria, leave_out=["A"])
