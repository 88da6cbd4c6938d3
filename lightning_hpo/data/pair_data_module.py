"""What the data of both agents share: reading, splitting, windows, loaders."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from lightning import LightningDataModule
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerFast

from lightning_hpo.data.augmentation import Augmentation
from lightning_hpo.data.batching import TrainBatchSampler
from lightning_hpo.data.corpus import Corpus
from lightning_hpo.data.pair import Pair
from lightning_hpo.data.pair_table import PairTable
from lightning_hpo.data.redsm5 import read_corpus, read_criteria, read_posts
from lightning_hpo.data.scored_pairs import ScoredPairs
from lightning_hpo.data.splits import Split, check_disjoint, fingerprint, split_posts
from lightning_hpo.data.tokenized_posts import TokenizedPosts
from lightning_hpo.data.tokenizers import load_tokenizer
from lightning_hpo.data.train_loader import TrainLoader, as_made
from lightning_hpo.data.train_samples import TrainSamples
from lightning_hpo.data.train_windows import TrainWindows
from lightning_hpo.data.window_target import WindowTarget
from lightning_hpo.data.windows import Windows
from lightning_hpo.exceptions import InputError

__all__ = ["PairDataModule"]


_LEAST = {
    "batch_size": 1,
    "eval_batch_size": 1,
    "max_length": 1,
    "stride": 0,
    "negative_ratio": 0,
    "num_workers": 0,
    "seed": 0,
    "draw_seed": 0,
}


class PairDataModule(LightningDataModule):
    """(criterion, post) pairs of a corpus in ReDSM5's form; each agent's module says which pairs and which labels.

    Args:
        posts: CSV of the posts, with the columns post_id and text.
        annotations: CSV of the annotations, with the columns post_id, sentence_text, DSM5_symptom and status;
            predict does without.
        criteria: YAML of criterion id to text; the nine symptoms of DSM-5 where there is none.
        tokenizer: Hub id or folder of the tokenizer; the command line takes that of the model.
        max_length: Most tokens in a window, criterion and special tokens included.
        stride: Tokens of a post that neighbouring windows share.
        batch_size: Windows in a training batch.
        eval_batch_size: Windows in a batch that is only scored, about; the windows of a pair stay together.
        negative_ratio: The share of null examples: windows of pairs that nobody annotated, drawn anew each epoch, for
            each window with evidence. All windows of annotated pairs, explicit negatives among them, are kept.
        seed: Seed of the split and of all that is drawn from the data.
        draw_seed: Seed of what is drawn anew each epoch: the order, null examples, augmentation. None: the seed above.
        val_fraction: Share of the posts for validation.
        test_fraction: Share of the posts for the test.
        num_workers: Processes that prepare batches.
        aliases: Other spellings of a criterion in the annotations: spelling to id.
        leave_out: Labels whose annotations are left out.
        aug: How training samples are augmented.
    """

    MEASURES: ClassVar[frozenset[str]] = frozenset(
        {
            "posts",
            "annotations",
            "criteria",
            "aliases",
            "leave_out",
            "val_fraction",
            "test_fraction",
            "seed",
            "draw_seed",
        }
    )
    """Arguments that no search may vary: they change what is measured, or are luck."""

    corpus: Corpus
    counts: dict[str, int]
    class_counts: tuple[int, int]
    """Windows of a training epoch without and with the criterion or its evidence."""
    test_pairs: PairTable
    """Those of the test part, once `setup("test")` has asked for them."""
    fingerprint: str
    val_pairs: PairTable

    def __init__(
        self,
        *,
        posts: str,
        tokenizer: str,
        annotations: str | None = None,
        criteria: str | None = None,
        max_length: int = 512,
        stride: int = 128,
        batch_size: int = 16,
        eval_batch_size: int = 64,
        negative_ratio: float = 1.0,
        seed: int = 17,
        draw_seed: int | None = None,
        val_fraction: float = 0.15,
        test_fraction: float = 0.15,
        num_workers: int = 0,
        aliases: dict[str, str] | None = None,
        leave_out: tuple[str, ...] = ("SPECIAL_CASE",),
        aug: Augmentation | None = None,
    ) -> None:
        super().__init__()
        self.posts, self.annotations, self.criteria, self.tokenizer = posts, annotations, criteria, tokenizer
        self.max_length, self.stride = max_length, stride
        self.batch_size, self.eval_batch_size, self.negative_ratio = batch_size, eval_batch_size, negative_ratio
        self.seed, self.val_fraction, self.test_fraction = seed, val_fraction, test_fraction
        self.draw_seed = seed if draw_seed is None else draw_seed
        self.num_workers, self.aliases = num_workers, aliases or {}
        self.leave_out = tuple(leave_out)
        self.aug = aug or Augmentation()
        if problems := self.flag_problems(vars(self)):
            raise InputError(problems)
        self._split: Split | None = None
        self._datasets: dict[str, ScoredPairs] = {}

    @classmethod
    def flag_problems(cls, values: Mapping[str, Any]) -> list[str]:
        """One line for each flag with which no module can be made; no file is needed to say so.

        Args:
            values: Arguments of the module, as plain values; a subclass may have fewer.
        """
        problems = [
            f"--data.{name}: {values[name]} is too small; it must be {least} or more"
            for name, least in _LEAST.items()
            if values.get(name) is not None and not values[name] >= least
        ]
        problems += [
            f"--data.{name}: {values[name]} is not between 0 and 1; 0.15 is usual"
            for name in ("val_fraction", "test_fraction")
            if name in values and not 0 < values[name] < 1
        ]
        length, stride = values.get("max_length", math.inf), values.get("stride", 0)
        if not problems and stride >= length:
            problems.append(f"--data.stride: {stride} is not below --data.max_length, {length}")
        return problems

    def refuse_windows(self, tokenizer: PreTrainedTokenizerFast, max_length: int, stride: int) -> None:
        """Refuse windows that an encoder cannot read, or in which the criteria leave no room for a post.

        Args:
            tokenizer: The encoder's tokenizer.
            max_length: Most tokens in a window.
            stride: Tokens of a post that neighbouring windows share.

        Raises:
            InputError: Naming the lengths that would work.
        """
        windows = Windows.of(tokenizer, max_length=max_length, stride=stride)
        windows.refuse_criteria(windows.tokenize(list(self.corpus.criteria.values())))

    # What an agent's module decides.

    def scored_pairs(self, post_ids: tuple[str, ...]) -> PairTable:
        """The pairs of a part that are scored, the same for every trial."""
        raise NotImplementedError

    def training_pairs(self, post_ids: tuple[str, ...]) -> PairTable:
        """The pairs of a part that are trained on, or drawn from."""
        raise NotImplementedError

    def labels(self, targets: Sequence[WindowTarget], post_starts: Sequence[int]) -> dict[str, Tensor]:
        """Label tensors of some windows."""
        raise NotImplementedError

    def pair_keys(self, pairs: Sequence[Pair]) -> dict[str, Any]:
        """What a scored batch says of its pairs."""
        raise NotImplementedError

    needs_offsets: ClassVar[bool] = False
    """Whether scored batches hold where each token stands in the post."""

    # Lightning's hooks.

    def setup(self, stage: str) -> None:
        """Read what a stage needs, and say what was repaired or left out; the test part's pairs only for `test`."""
        if stage == "predict":
            self._set_up_predict()
            return
        split = self._read()
        if stage == "fit":
            self._set_up_training(split)
        if stage in ("fit", "validate"):
            self._datasets["val"] = self._dataset(self.val_pairs)
        if stage == "test":
            self.test_pairs = self.scored_pairs(split.test)
            self._datasets["test"] = self._dataset(self.test_pairs)
        if self.counts:
            rank_zero_info("data: " + ", ".join(f"{name} {count}" for name, count in self.counts.items()))

    def train_dataloader(self) -> TrainLoader:
        """Batches of windows, drawn anew each epoch; their number is the same for every epoch."""
        sampler = TrainBatchSampler(
            self._samples.lengths,
            windows=len(self._samples),
            kept=self._samples.kept,
            drawn=self._drawn,
            batch_size=self.batch_size,
            seed=self.draw_seed,
        )
        return TrainLoader(
            self._train_windows, sampler, num_workers=self.num_workers, pin_memory=torch.cuda.is_available()
        )

    def val_dataloader(self) -> DataLoader[Any]:
        """Batches of whole pairs of the validation part."""
        return self._eval_loader("val")

    def test_dataloader(self) -> DataLoader[Any]:
        """Batches of whole pairs of the test part."""
        return self._eval_loader("test")

    def predict_dataloader(self) -> DataLoader[Any]:
        """Batches of whole pairs: every post with every criterion."""
        return self._eval_loader("predict")

    # The rest is private.

    def _read(self) -> Split:
        """Read and split the corpus, once; count, and take the fingerprint."""
        if self._split:
            return self._split
        if self.annotations is None:
            raise InputError(
                "--data.annotations: it is not given; only predict does without, give the path of a CSV file"
            )
        self.corpus = read_corpus(self.posts, self.annotations, self.criteria, self.aliases, self.leave_out)
        split = split_posts(
            self.corpus.posts, seed=self.seed, val_fraction=self.val_fraction, test_fraction=self.test_fraction
        )
        check_disjoint(self.corpus.posts, split, seed=self.seed)
        self.counts = dict(self.corpus.counts)
        self.val_pairs = self.scored_pairs(split.val)
        scored = sorted(map(self.val_pairs.key, range(len(self.val_pairs))))
        self.fingerprint = fingerprint(self.corpus, split, type(self).__name__, self.seed, scored)
        self._tokenize()
        self._split = split
        return split

    def _tokenize(self) -> None:
        tokenizer, criteria, posts = load_tokenizer(self.tokenizer), self.corpus.criteria, self.corpus.posts
        self._windows = Windows.of(tokenizer, max_length=self.max_length, stride=self.stride)
        self._criteria = dict(zip(criteria, self._windows.tokenize(list(criteria.values())), strict=True))
        self._windows.refuse_criteria(self._criteria.values())
        self._posts = TokenizedPosts(posts.texts, tokenizer, posts.cache)

    def _set_up_predict(self) -> None:
        posts, criteria = read_posts(self.posts), read_criteria(self.criteria)
        self.corpus = Corpus(posts, {key: text for key, text in criteria.items() if key not in self.leave_out})
        self.counts = {}
        self._split = None
        self._tokenize()
        self._datasets["predict"] = self._dataset(self.corpus.pairs_of(posts.ids), known=False)

    def _set_up_training(self, split: Split) -> None:
        pairs = self.training_pairs(split.train)
        self._samples = TrainSamples(pairs, posts=self._posts, criteria=self._criteria, windows=self._windows)
        self.counts |= {name: count for name, count in self._samples.counts.items() if count}
        positives, kept = self._samples.positives, len(self._samples.kept)
        if not positives:
            raise InputError("--data.annotations: no post of the training part has evidence; use more annotated posts")
        self._drawn, others = round(self.negative_ratio * positives), len(self._samples) - kept
        if self._drawn > others:
            lacking = "training windows that --data.negative_ratio asks for and the corpus does not have"
            self.counts[lacking] = self._drawn - others
        self.class_counts = (kept - positives + min(self._drawn, others), positives)
        self._train_windows = TrainWindows(
            self._samples,
            texts=self.corpus.posts.texts,
            posts=self._posts,
            criteria=self._criteria,
            windows=self._windows,
            labels=self.labels,
            augmentation=self.aug,
            seed=self.draw_seed,
        )

    def _dataset(self, pairs: PairTable, *, known: bool = True) -> ScoredPairs:
        return ScoredPairs(
            pairs,
            posts=self._posts,
            criteria=self._criteria,
            windows=self._windows,
            batch_size=self.eval_batch_size,
            labels=self.labels if known else None,
            pair_keys=self.pair_keys if known else None,
            offsets=self.needs_offsets,
        )

    def _eval_loader(self, part: str) -> DataLoader[Any]:
        return DataLoader(
            self._datasets[part],
            batch_size=None,
            collate_fn=as_made,
            num_workers=self.num_workers,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=self.num_workers > 0,
            generator=torch.Generator(),  # for the reason that `TrainLoader` has one
        )
