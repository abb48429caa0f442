"""Laws of POM."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch

from reid.config import MatcherConfig, ModelConfig
from reid.losses import matching_loss
from reid.modality import Modality
from reid.model import Porsche
from reid.objective import pair_blocks
from reid.point_matcher import DecoderLayer, PointMatcher
from tests.reid.reid_builders import SMALL, liven_norms

SETTINGS = MatcherConfig(layers=3, feed_forward=16, head=8)


def matcher(**changes: object) -> PointMatcher:
    torch.manual_seed(0)
    made = PointMatcher(SETTINGS.model_copy(update=changes), (2, 4), 6).eval()
    liven_norms(made, 0.5)
    return made


def test_points_are_one_set_per_decoder_layer_and_the_first_comes_from_the_map_itself() -> None:
    made = matcher()
    maps = torch.randn(5, 6, 2, 4)
    tokens = made.encode(maps)
    assert tokens.shape == (5, 3, 8, 6)
    first = made.decoder_layers()[0].project(maps.flatten(2).transpose(1, 2))
    torch.testing.assert_close(tokens[:, 0], first)


def test_a_larger_map_is_averaged_down_to_the_points() -> None:
    made = matcher()
    maps = torch.randn(2, 6, 2, 4)
    large = maps.repeat_interleave(2, dim=2).repeat_interleave(3, dim=3)
    torch.testing.assert_close(made.encode(large), made.encode(maps))


def test_fewer_channels_make_smaller_points() -> None:
    assert matcher(channels=4).encode(torch.randn(2, 6, 2, 4)).shape == (2, 3, 8, 4)


def test_best_matches_are_the_maxima_of_the_weighed_similarity() -> None:
    layer = DecoderLayer(4, 3, 3, 8)
    queries, gallery = torch.randn(2, 4, 3), torch.randn(5, 4, 3)
    matches = layer.matches(queries, gallery)
    assert matches.shape == (2, 10, 4)
    weights = torch.sigmoid((layer.prior + layer.prior.T) / 2)
    for query in range(2):
        for other in range(5):
            table = (queries[query] @ gallery[other].T) * weights
            torch.testing.assert_close(matches[0, query * 5 + other], table.max(dim=1).values)
            torch.testing.assert_close(matches[1, query * 5 + other], table.max(dim=0).values)


@torch.no_grad()
def test_a_score_does_not_depend_on_who_asks_nor_on_the_rest_of_the_batch() -> None:
    made = matcher()
    tokens = made.encode(torch.randn(6, 6, 2, 4))
    scores = made.score(tokens[:2], tokens[2:])
    assert scores.shape == (2, 4)
    torch.testing.assert_close(made.score(tokens[2:], tokens[:2]).T, scores)
    torch.testing.assert_close(made.score(tokens[1:2], tokens[3:4]), scores[1:, 1:2])


@torch.no_grad()
def test_blocks_are_parts_of_the_whole_table() -> None:
    made = matcher()
    tokens = made.encode(torch.randn(7, 6, 2, 4))
    slices = [slice(0, 2), slice(2, 3), slice(3, 7)]
    (whole,) = made(tokens, [(slice(0, 7), slice(0, 7))])
    for (rows, columns), part in zip(combinations(slices, 2), made(tokens, list(combinations(slices, 2))), strict=True):
        torch.testing.assert_close(part, whole[rows, columns])


def test_a_batch_of_one_modality_has_no_cross_pairs() -> None:
    images = {Modality.VISIBLE: torch.zeros(3, 3, 8, 8)}
    assert pair_blocks(images, "cross") == []
    assert pair_blocks(images, "all") == [(slice(0, 3), slice(0, 3))]


def test_the_matching_loss_is_cross_entropy_summed_over_the_gallery() -> None:
    scores = torch.tensor([[2.0, -1.0, 0.5], [0.0, 3.0, -2.0]])
    identities = torch.tensor([4, 7, 7, 4, 9])
    block = (slice(0, 2), slice(2, 5))
    same = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    expected = torch.log1p(torch.exp(-(2 * same - 1) * scores)).sum(dim=1).mean()
    torch.testing.assert_close(matching_loss([scores], identities, [block]), expected)


def test_a_picture_is_not_compared_with_itself() -> None:
    identities = torch.tensor([1, 2, 1])
    whole = (slice(0, 3), slice(0, 3))
    scores = torch.zeros(3, 3)
    loss = matching_loss([scores], identities, [whole])
    assert loss.item() == pytest.approx(2 * torch.log(torch.tensor(2.0)).item())
    scores = scores + torch.diag(torch.full((3,), 50.0))
    torch.testing.assert_close(matching_loss([scores], identities, [whole]), loss)


def test_a_query_whose_scores_are_not_finite_counts_in_nothing() -> None:
    identities = torch.tensor([1, 2, 1, 2])
    block = (slice(0, 2), slice(2, 4))
    sound = torch.tensor([[0.3, -0.2]], requires_grad=True)
    broken = torch.tensor([[float("nan"), float("inf")]], requires_grad=True)
    loss = matching_loss([torch.cat([sound, broken])], identities, [block])
    alone = matching_loss([sound], torch.tensor([1, 1, 2]), [(slice(0, 1), slice(1, 3))])
    torch.testing.assert_close(loss, alone)
    loss.backward()  # type: ignore[no-untyped-call]
    assert broken.grad is not None
    assert broken.grad.abs().sum() == 0
    assert matching_loss([torch.full((2, 2), float("nan"))], identities, [block]) == 0


def test_inference_builds_the_reporting_stage_alone() -> None:
    stages = [{"tiles": 4, "layer": "layer1", "dimension": 8}, {"tiles": 2, "layer": "layer2", "dimension": 8}]
    values = {**SMALL, "stages": stages, "matcher": SETTINGS.model_dump(), "matching_stage": 1}
    config = ModelConfig.model_validate(values)
    assert list(Porsche(config, identities=3).matchers) == ["0", "1"]
    deployed = Porsche(config).eval()
    assert list(deployed.matchers) == ["1"]
    described = deployed.describe({Modality.THERMAL: torch.randn(2, 3, 64, 64)})
    assert described.tokens is not None
    assert described.tokens.shape == (2, 3, 8 * 8, 8)


@pytest.mark.parametrize("form", ["shared", "per_modality"])
def test_each_modality_is_classified_by_its_own_classifier_or_by_one(form: str) -> None:
    torch.manual_seed(0)
    made = Porsche(ModelConfig.model_validate({**SMALL, "classifier": form}), identities=5).eval()
    images = {m: torch.randn(2, 3, 64, 64) for m in (Modality.VISIBLE, Modality.THERMAL)}
    before = made(images, 0).logits
    with torch.no_grad():
        next(reversed(list(made.branches["0"].classifiers.values()))).weight.zero_()  # type: ignore[operator]
    after = made(images, 0).logits
    thermal_changes = not torch.equal(before[2:], after[2:])
    assert thermal_changes
    assert torch.equal(before[:2], after[:2]) is (form == "per_modality")
