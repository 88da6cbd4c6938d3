import pytest
import torch
from torch import nn

from lightning_hpo.agents.network.heads import (
    CriteriaHead,
    CriterionAttention,
    EvidenceHead,
    JointHead,
    Pooling,
    PoolingName,
    TokenHead,
    WindowHead,
)

HIDDEN = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
POOLINGS: list[PoolingName] = ["cls", "mean", "max", "attention", "last"]


def test_pooling_follows_its_name() -> None:
    torch.testing.assert_close(Pooling("cls", 8)(HIDDEN, MASK), HIDDEN[:, 0])
    torch.testing.assert_close(Pooling("mean", 8)(HIDDEN, MASK)[1], HIDDEN[1, :3].mean(dim=0))
    torch.testing.assert_close(Pooling("max", 8)(HIDDEN, MASK)[1], HIDDEN[1, :3].amax(dim=0))
    torch.testing.assert_close(Pooling("last", 8)(HIDDEN, MASK), torch.stack((HIDDEN[0, 4], HIDDEN[1, 2])))


def test_attention_pooling_weights_tokens() -> None:
    pooling = Pooling("attention", 8)
    assert pooling.weigh is not None
    weights = pooling.weigh(HIDDEN[1, :3]).softmax(dim=0)
    torch.testing.assert_close(pooling(HIDDEN, MASK)[1], (weights * HIDDEN[1, :3]).sum(dim=0))


@pytest.mark.parametrize("name", POOLINGS)
def test_padding_is_ignored(name: PoolingName) -> None:
    pooling = Pooling(name, 8)
    other = HIDDEN.clone()
    other[1, 3:] = 1e4
    torch.testing.assert_close(pooling(HIDDEN, MASK), pooling(other, MASK))


@pytest.mark.parametrize("name", POOLINGS)
@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_pooling_works_under_autocast(name: PoolingName, precision: torch.dtype) -> None:
    pooling = Pooling(name, 8)
    with torch.autocast("cpu", precision):
        pooled = pooling(HIDDEN, MASK)
    torch.testing.assert_close(pooled.float(), pooling(HIDDEN, MASK), atol=0.02, rtol=0.02)


@pytest.mark.parametrize("layers", [0, 1, 3])
def test_layers_and_hidden_are_applied(layers: int) -> None:
    head = TokenHead(EvidenceHead(layers=layers, hidden=11), 8)
    linear = [module for module in head.modules() if isinstance(module, nn.Linear)]
    assert [module.out_features for module in linear] == [11] * layers + [2]
    assert head(HIDDEN, MASK).shape == (2, 5, 2)


def test_activation_and_dropout_are_applied() -> None:
    head = WindowHead(CriteriaHead(activation="silu", dropout=0.3), 8)
    assert any(isinstance(module, nn.SiLU) for module in head.modules())
    assert {module.p for module in head.modules() if isinstance(module, nn.Dropout)} == {0.3}
    assert head(HIDDEN, MASK).shape == (2, 2)


def _criteria() -> tuple[torch.Tensor, torch.Tensor]:
    hidden = torch.randn(3, 4, 8, generator=torch.Generator().manual_seed(1))
    return hidden, torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0]])


@pytest.mark.parametrize("name", POOLINGS)
def test_logits_for_a_criterion_depend_on_its_text_and_the_window_only(name: PoolingName) -> None:
    torch.manual_seed(0)
    head = CriterionAttention(CriteriaHead(pooling=name), 8).eval()
    criteria, mask = _criteria()
    logits = head(HIDDEN, MASK, criteria, mask)
    assert logits.shape == (2, 3, 2)
    assert len(logits.flatten().unique()) == logits.numel()
    for window in range(2):
        for criterion in range(3):
            alone = head(HIDDEN[window, None], MASK[window, None], criteria[criterion, None], mask[criterion, None])
            torch.testing.assert_close(alone[0, 0], logits[window, criterion])


def test_padding_of_windows_and_criteria_is_ignored() -> None:
    head = CriterionAttention(CriteriaHead(pooling="mean"), 8).eval()
    criteria, mask = _criteria()
    other, others = HIDDEN.clone(), criteria.clone()
    other[1, 3:], others[1, 2:] = 1e4, 1e4
    torch.testing.assert_close(head(HIDDEN, MASK, criteria, mask), head(other, MASK, others, mask))


def test_criterion_attention_reads_the_token_that_its_query_points_to() -> None:
    """Against the formula of Mullenbach et al., computed for each window and criterion."""
    head = CriterionAttention(CriteriaHead(pooling="mean", layers=0), 8).eval()
    assert torch.equal(head.attention.query(HIDDEN), HIDDEN)
    nn.init.normal_(head.attention.key.weight)
    criteria, mask = _criteria()
    query = criteria[2, :3].mean(dim=0)
    scores = torch.stack([head.attention.key(token) @ head.attention.query(query) for token in HIDDEN[1, :3]]) / 8**0.5
    read = (scores.softmax(dim=0)[:, None] * HIDDEN[1, :3]).sum(dim=0)
    expected = head.layers(torch.cat((read, query, read * query)))
    torch.testing.assert_close(head(HIDDEN, MASK, criteria, mask)[1, 2], expected)


def _joint_head() -> JointHead:
    torch.manual_seed(0)
    head = JointHead(CriteriaHead(pooling="mean", layers=0), 8).eval()
    for parameter in head.parameters():
        nn.init.normal_(parameter, std=0.5)
    return head


def test_joint_head_decides_as_criterion_attention() -> None:
    head = _joint_head()
    alone = CriterionAttention(CriteriaHead(pooling="mean", layers=0), 8).eval()
    alone.load_state_dict(head.state_dict(), strict=False)
    criteria, mask = _criteria()
    found = head(HIDDEN, MASK, criteria, mask)
    assert found.shape == (2, 3, 1 + 5, 2)
    torch.testing.assert_close(found[:, :, 0], alone(HIDDEN, MASK, criteria, mask))


def test_joint_head_matches_each_token_with_each_criterion() -> None:
    """Against the biaffine formula, computed for each window, criterion and token."""
    head = _joint_head()
    criteria, mask = _criteria()
    found = head(HIDDEN, MASK, criteria, mask)
    for window, criterion, token in [(0, 0, 0), (1, 2, 1), (0, 1, 4)]:
        query = criteria[criterion, : int(mask[criterion].sum())].mean(dim=0)
        tokens = HIDDEN[window, : int(MASK[window].sum())]
        weights = (head.attention.key(tokens) @ head.attention.query(query) / 8**0.5).softmax(dim=0)
        query = query + weights @ tokens
        hidden = HIDDEN[window, token]
        for side, match in enumerate((head.start, head.end)):
            expected = match.key(hidden) @ match.query(query) / 8**0.5 + head.token(hidden)[side]
            torch.testing.assert_close(found[window, criterion, 1 + token, side], expected)


def test_joint_head_ignores_padding() -> None:
    head = _joint_head()
    criteria, mask = _criteria()
    other, others = HIDDEN.clone(), criteria.clone()
    other[1, 3:], others[1, 2:] = 1e4, 1e4
    one, two = (head(hidden, MASK, text, mask) for hidden, text in ((HIDDEN, criteria), (other, others)))
    torch.testing.assert_close(one[0], two[0])
    torch.testing.assert_close(one[1, :, :4], two[1, :, :4])
