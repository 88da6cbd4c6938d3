"""Base of the agents' data modules: reads and splits a corpus, and makes the data loaders."""

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerFast

from lightning_hpo.data.augmentation import Augmentation
from lightning_hpo.data.corpus import Corpus, TokenizedCorpus, read_corpus
from lightning_hpo.data.criteria import read_criteria
from lightning_hpo.data.datasets import EvalDataset, Labels, PairKeys, TrainDataset
from lightning_hpo.data.hub import load_tokenizer
from lightning_hpo.data.labels import WindowTarget
from lightning_hpo.data.lost_evidence import causes_line
from lightning_hpo.data.one_pass_samples import OnePassSamples
from lightning_hpo.data.one_pass_windows import Form, make_windows
from lightning_hpo.data.pair_template import PairTemplate, largest_ids
from lightning_hpo.data.pairs import Pair, PairTable
from lightning_hpo.data.posts import Posts, read_posts
from lightning_hpo.data.split_sizes import SplitSize, split_lines, split_problems, split_sizes
from lightning_hpo.data.splits import Split, check_disjoint, fingerprint, split_posts
from lightning_hpo.data.train_loader import TrainLoader, unchanged
from lightning_hpo.data.train_samples import TrainSamples
from lightning_hpo.exceptions import InputError, raise_problems
from lightning_hpo.flag_types import Bounds, type_problems

__all__ = ["PairDataModule"]

_log = logging.getLogger(__name__)

Count = Annotated[int, Bounds(1)]
Fraction = Annotated[float, Bounds(0, 1, exclusive=True)]


class PairDataModule(LightningDataModule):
    """(post, criterion) pairs of a corpus in ReDSM5's format. Subclasses choose the pairs and their labels.

    Args:
        posts: CSV file of the posts, with the columns post_id and text.
        annotations: CSV file of the annotations, with the columns post_id, sentence_text, DSM5_symptom and status. Not
            needed for predict.
        criteria: YAML file of criterion id to text. Default: the nine symptoms of DSM-5.
        tokenizer: Hub id or folder of the tokenizer. On the command line, it is set to --model.name.
        tokenizer_revision: Its branch, tag or commit on the hub. On the command line, it is set to --model.revision.
        max_length: Maximum number of tokens in a window, including criterion and special tokens.
        stride: Number of tokens of a post that neighbouring windows share.
        batch_size: Number of windows in a training batch.
        eval_batch_size: Approximate number of windows in an evaluation batch. All windows of a pair are in one batch.
        negative_ratio: Number of null examples (windows of unannotated pairs) per window with evidence. They are
            redrawn each epoch. Windows of annotated pairs, including explicit negatives, are in every epoch.
        seed: Seed of the split, and the default of draw_seed.
        draw_seed: Seed of what is redrawn each epoch: order, null examples and augmentation. Default: seed.
        val_fraction: Share of the posts in the validation split.
        test_fraction: Share of the posts in the test split.
        split_rule: How posts are split. `stratified`: each split has its share of every criterion's positives, and each
            text counts once. `hash`: by a hash of the text alone, as in version 0.1.0, whose studies keep this rule and
            the batches of that version.
        num_workers: Number of data loader worker processes.
        aliases: Other spellings of a criterion in the annotations: spelling to id.
        leave_out: Labels to ignore: their annotations and criteria are not used.
        aug: Augmentation of the training samples.
    """

    MEASURES: ClassVar[frozenset[str]] = frozenset(
        {"posts", "annotations", "criteria", "aliases", "leave_out", "seed", "draw_seed"}
        | {"val_fraction", "test_fraction", "split_rule"}
    )
    """Arguments that must not be searched: they change the evaluation data, or only the random draw."""

    needs_offsets: ClassVar[bool] = False
    """Whether evaluation batches have the posts, and the character range of each token in its post."""

    unusable: ClassVar[str] = "left out"
    """What happens to annotated pairs that are not usable."""

    needs_negatives: ClassVar[bool] = True
    """Whether a score needs posts that do not meet a criterion, besides posts that meet it."""

    form: Form = "pairs"
    """How posts and criteria are read."""

    LABELS: ClassVar[frozenset[str]] = frozenset()
    """Keys of the label tensors in a batch; empty if they are not known."""

    corpus: Corpus
    counts: dict[str, int]
    class_counts: tuple[int, int]
    """Numbers of negative and of positive windows in a training epoch."""
    test_pairs: PairTable
    """Pairs of the test split, after `setup("test")`."""
    fingerprint: str
    largest_ids: tuple[int, int]
    """Largest token id and token type id of the tokenizer."""
    split_sizes: dict[str, SplitSize]
    """Posts and positives of each split."""
    val_pairs: PairTable

    def __init__(
        self,
        *,
        posts: str,
        tokenizer: str,
        tokenizer_revision: str | None = None,
        annotations: str | None = None,
        criteria: str | None = None,
        max_length: Count = 512,
        stride: Annotated[int, Bounds(0)] = 128,
        batch_size: Count = 16,
        eval_batch_size: Count = 64,
        negative_ratio: Annotated[float, Bounds(0)] = 1.0,
        seed: Annotated[int, Bounds(0)] = 17,
        draw_seed: Annotated[int | None, Bounds(0)] = None,
        val_fraction: Fraction = 0.15,
        test_fraction: Fraction = 0.15,
        split_rule: Literal["stratified", "hash"] = "stratified",
        num_workers: Annotated[int, Bounds(0)] = 0,
        aliases: dict[str, str] | None = None,
        leave_out: tuple[str, ...] = ("SPECIAL_CASE",),
        aug: Augmentation | None = None,
    ) -> None:
        super().__init__()
        self.posts = str(Path(posts).expanduser())
        self.annotations, self.criteria = _expanded(annotations), _expanded(criteria)
        self.tokenizer, self.tokenizer_revision = tokenizer, tokenizer_revision
        self.max_length, self.stride = max_length, stride
        self.batch_size, self.eval_batch_size, self.negative_ratio = batch_size, eval_batch_size, negative_ratio
        self.seed, self.val_fraction, self.test_fraction = seed, val_fraction, test_fraction
        self.split_rule = split_rule
        self.draw_seed = seed if draw_seed is None else draw_seed
        self.num_workers, self.aliases, self.leave_out = num_workers, aliases or {}, tuple(leave_out)
        self.aug = aug or Augmentation()
        raise_problems(self.flag_problems(vars(self)))
        self._split: Split | None = None
        self._datasets: dict[str, EvalDataset] = {}

    @classmethod
    def flag_problems(cls, values: Mapping[str, Any]) -> list[str]:
        """Return an error line for each given argument that is out of bounds. No file is read."""
        problems = type_problems("--data", PairDataModule.__init__, values)
        if not problems and "max_length" in values and values.get("stride", 0) >= values["max_length"]:
            limit = values["max_length"]
            problems.append(f"--data.stride: got {values['stride']}; it must be below --data.max_length, {limit}")
        return problems

    def refuse_windows(self, tokenizer: PreTrainedTokenizerFast, max_length: int, stride: int) -> None:
        """Check that an encoder can read such windows, and that the criteria leave room for a post.

        Raises:
            InputError: If the lengths do not work. The message proposes lengths that do.
        """
        windows = make_windows(
            self.form, tokenizer.backend_tokenizer, PairTemplate.of(tokenizer), max_length=max_length, stride=stride
        )
        windows.check_criteria(windows.tokenize(self.corpus.criteria.values()))

    def scored_pairs(self, post_ids: tuple[str, ...]) -> PairTable:
        """Return the pairs of these posts that are evaluated in every trial: every post with every criterion."""
        return self.corpus.pairs_of(post_ids)

    def training_pairs(self, post_ids: tuple[str, ...]) -> PairTable:
        """Return the pairs of these posts that training uses or draws from: every post with every criterion."""
        return self.corpus.pairs_of(post_ids)

    @property
    def train_pairs(self) -> PairTable:
        """Pairs of the training split that are labelled or taken as not met."""
        return self.training_pairs(self._read().train)

    def is_usable(self, pair: Pair) -> bool:  # noqa: ARG002 - subclasses read it
        """Return whether the agent can learn from an annotated pair, or be scored on it."""
        return True

    @staticmethod
    def labels(targets: Sequence[WindowTarget], post_starts: Sequence[int]) -> dict[str, Tensor]:
        """Return the label tensors of windows."""
        raise NotImplementedError

    @staticmethod
    def pair_keys(pairs: Sequence[Pair]) -> dict[str, Any]:
        """Return further keys of an evaluation batch with these pairs."""
        raise NotImplementedError

    def setup(self, stage: str) -> None:
        """Read the data of a stage and log what was repaired or left out. Only `test` computes the test pairs."""
        if stage == "predict":
            self._set_up_predict()
            return
        split = self._read()
        self._check_sizes(stage)
        if stage == "fit":
            samples = OnePassSamples if self.form == "one_pass" else TrainSamples
            self._samples = samples(self.training_pairs(split.train), self._tokens, self.negative_ratio)
            self.counts |= {name: count for name, count in self._samples.counts.items() if count}
            self.class_counts = self._samples.class_counts
            self._train_dataset = TrainDataset(
                self._samples, self._tokens, labels=self.labels, augmentation=self.aug, seed=self.draw_seed
            )
        if stage in ("fit", "validate"):
            self._datasets["val"] = self._dataset(self.val_pairs, self.labels, self.pair_keys)
        if stage == "test":
            self.test_pairs = self.scored_pairs(split.test)
            self._datasets["test"] = self._dataset(self.test_pairs, self.labels, self.pair_keys)
        if self.counts:
            _log.info("data: %s", ", ".join(f"{name} {count}" for name, count in self.counts.items()))
        for line in split_lines(self.split_rule, self.split_sizes):
            _log.info(line)

    def train_dataloader(self) -> TrainLoader:
        """Return a loader of batches that are redrawn each epoch. All epochs have the same number of batches."""
        sampler = self._samples.batches(self.batch_size, self.draw_seed, spread=self.split_rule == "stratified")
        return TrainLoader(self._train_dataset, sampler, num_workers=self.num_workers, pin_memory=self._pins_memory)

    def val_dataloader(self) -> DataLoader[Any]:
        """Return a loader of batches of whole pairs of the validation split."""
        return self._eval_loader("val")

    def test_dataloader(self) -> DataLoader[Any]:
        """Return a loader of batches of whole pairs of the test split."""
        return self._eval_loader("test")

    def predict_dataloader(self) -> DataLoader[Any]:
        """Return a loader of batches of whole pairs: every post with every criterion."""
        return self._eval_loader("predict")

    def _eval_loader(self, split: str) -> DataLoader[Any]:
        return DataLoader(
            self._datasets[split],
            batch_size=None,
            collate_fn=unchanged,
            num_workers=self.num_workers,
            pin_memory=self._pins_memory,
            persistent_workers=self.num_workers > 0,
            generator=torch.Generator(),  # for the reason given in `TrainLoader`
        )

    @property
    def _pins_memory(self) -> bool:
        """Whether the Trainer uses a CUDA device. Pinning for another one would open a CUDA context: half a GB."""
        strategy = getattr(self.trainer, "strategy", None)
        return strategy is not None and strategy.root_device.type == "cuda"

    def _read(self) -> Split:
        """Read, split and tokenize the corpus once, and compute its fingerprint."""
        if self._split:
            return self._split
        if self.annotations is None:
            raise InputError("--data.annotations: missing; give the path of a CSV file (only predict works without)")
        self.corpus = read_corpus(self.posts, self.annotations, self.criteria, self.aliases, self.leave_out)
        stratified = self.split_rule == "stratified"
        split = split_posts(
            self.corpus.posts,
            seed=self.seed,
            val_fraction=self.val_fraction,
            test_fraction=self.test_fraction,
            positives=self.corpus.positives if stratified else None,
        )
        check_disjoint(self.corpus.posts, split, seed=self.seed)
        self.counts = dict(self.corpus.counts)
        self._count(split)
        self.val_pairs = self.scored_pairs(split.val)
        scored = sorted(map(self.val_pairs.key, range(len(self.val_pairs))))
        # Without the rule of version 0.1.0, so that its studies keep their fingerprint.
        rule = [self.split_rule] if stratified else []
        self.fingerprint = fingerprint(self.corpus, split, type(self).__name__, self.seed, scored, *rule)
        self._tokens = self._tokenized()
        self._split = split
        return split

    def _count(self, split: Split) -> None:
        """Count the posts and positives of each split, and the annotated pairs that are not used."""
        usable = [pair for pair in self.corpus.pairs if self.is_usable(pair)]
        positives = [(pair.post_id, pair.criterion) for pair in usable if pair.met]
        self.split_sizes = split_sizes(vars(split), positives, self.corpus.criteria)
        for name, title in (("train", "training"), ("val", "validation"), ("test", "test")):
            own = set(getattr(split, name))
            if left_out := sum(pair.post_id in own and not self.is_usable(pair) for pair in self.corpus.pairs):
                self.counts[f"{title} pairs {self.unusable} (their evidence was not found in the post)"] = left_out

    def _check_sizes(self, stage: str) -> None:
        """Check that every split can measure something.

        A study of version 0.1.0 may have a test split that cannot: it is refused when it is scored.
        """
        splits = ["train", "val", "test"] if self.split_rule == "stratified" else ["train", "val"]
        splits = ["test"] if stage == "test" else splits
        problems = split_problems(self.split_sizes, negatives=self.needs_negatives, splits=splits)
        positives = [pair for pair in self.corpus.pairs if pair.met]
        lost = sum(not self.is_usable(pair) for pair in positives)
        if problems and lost:
            cause = (
                f"--data.annotations: the evidence of {lost} of {len(positives)} positive pairs was not found in their "
                f"posts; {causes_line(self.counts)}"
            )
            problems = [cause, *problems] if lost < len(positives) else [cause]
        raise_problems(problems)

    def _tokenized(self) -> TokenizedCorpus:
        tokenizer = load_tokenizer(self.tokenizer, self.tokenizer_revision)
        self.largest_ids = largest_ids(tokenizer)
        return TokenizedCorpus.of(
            self.corpus, tokenizer, max_length=self.max_length, stride=self.stride, form=self.form
        )

    def _set_up_predict(self) -> None:
        posts, criteria = read_posts(self.posts, with_empty=True), read_criteria(self.criteria)
        self.corpus = Corpus(posts, {key: text for key, text in criteria.items() if key not in self.leave_out})
        self.counts, self._split = {}, None
        self._tokens = self._tokenized()
        self._datasets["predict"] = self._dataset(self.corpus.pairs_of(posts.ids), None, partial(_post_keys, posts))

    def _dataset(self, pairs: PairTable, labels: Labels | None, pair_keys: PairKeys) -> EvalDataset:
        return EvalDataset(
            pairs,
            self._tokens,
            batch_size=self.eval_batch_size,
            labels=labels,
            pair_keys=pair_keys,
            offsets=self.needs_offsets,
        )


def _post_keys(posts: Posts, pairs: Sequence[Pair]) -> dict[str, Any]:
    """Return `problems`: why the post of each pair cannot be read, or an empty text."""
    return {"problems": ["the post is empty" if pair.post_id in posts.empty else "" for pair in pairs]}


def _expanded(path: str | None) -> str | None:
    return path and str(Path(path).expanduser())
