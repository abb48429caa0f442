"""POM: whether two pictures show one vehicle, judged by the best match of each of their points.

After PORSCHE (Liu et al., IEEE IoT Journal 2025), which derives it from TransMatcher (Liao and Shao, NeurIPS 2021).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from reid.config import MatcherConfig

Block = tuple[slice, slice]
PRIOR_ODDS = 0.1


class MatchingHead(nn.Module):
    """The deep matching head: how good P best matches are, as one number.

    Args:
        points: P.
        hidden: hidden width.
    """

    def __init__(self, points: int, hidden: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(points, hidden, bias=False), nn.BatchNorm1d(hidden), nn.ReLU(inplace=True), nn.Linear(hidden, 1)
        )
        self.spread = nn.BatchNorm1d(1)

    def forward(self, matches: Tensor) -> Tensor:
        """(M, P) best similarity of each point -> (M, 1)."""
        spread = self.spread(matches.reshape(-1, 1)).reshape(matches.shape)  # (M, P)
        score: Tensor = self.layers(spread)  # (M, 1)
        return score


class DecoderLayer(nn.Module):
    """One comparison: point similarities weighed by a learned prior, their maxima judged by a head.

    The prior is kept symmetric (PORSCHE only starts it so): a score then does not depend on which of the two
    pictures asks.

    Args:
        points: P, points of a picture.
        dimension: D, channels of the map.
        channels: C, numbers of a point that is ready to be compared.
        head: hidden width of the matching head.
    """

    def __init__(self, points: int, dimension: int, channels: int, head: int) -> None:
        super().__init__()
        self.project = nn.Linear(dimension, channels)
        self.prior = nn.Parameter(torch.randn(points, points))
        self.head = MatchingHead(points, head)
        self.scale = nn.BatchNorm1d(1)

    def weights(self) -> Tensor:
        """(P, P) in 0-1: how much a match between two places counts."""
        return torch.sigmoid((self.prior + self.prior.T) / 2)

    def matches(self, queries: Tensor, gallery: Tensor) -> Tensor:
        """Best match of each point in the other picture.

        Args:
            queries: (Q, P, C) projected points.
            gallery: (G, P, C) projected points.

        Returns:
            (2, Q * G, P): of the query's points, and of the gallery's.
        """
        similarity = torch.einsum("qpd,grd->qpgr", queries, gallery)  # (Q, P, G, P)
        similarity = similarity * self.weights().to(similarity.dtype)[None, :, None, :]
        best_of_query = similarity.amax(dim=3).transpose(1, 2)  # (Q, G, P)
        best_of_gallery = similarity.amax(dim=1)  # (Q, G, P)
        return torch.stack([best_of_query, best_of_gallery]).flatten(1, 2)  # (2, Q G, P)

    def judge(self, matches: Tensor) -> Tensor:
        """(2, M, P) best matches -> (M, 1) score."""
        scores = self.head(matches.flatten(0, 1)).unflatten(0, matches.shape[:2])  # (2, M, 1)
        score: Tensor = self.scale(scores.sum(dim=0))
        return score


class PointMatcher(nn.Module):
    """Encoder, decoder and total of one stage's POM.

    Args:
        config: its settings.
        points: rows and columns of the points; a larger map is averaged down to them.
        dimension: D, channels of the stage's projected map.
    """

    def __init__(self, config: MatcherConfig, points: tuple[int, int], dimension: int) -> None:
        super().__init__()
        self.points = points
        self.encoder = nn.ModuleList(
            nn.TransformerEncoderLayer(
                dimension, nhead=1, dim_feedforward=config.feed_forward, dropout=config.dropout, batch_first=True
            )
            for _ in range(config.layers - 1)
        )
        count, channels = points[0] * points[1], config.channels or dimension
        self.decoder = nn.ModuleList(
            DecoderLayer(count, dimension, channels, config.head) for _ in range(config.layers)
        )
        self.total = nn.BatchNorm1d(1)
        # Few pairs of a batch match: starting from even odds wastes hundreds of steps (Lin et al., ICCV 2017, 3.3).
        nn.init.constant_(self.total.bias, math.log(PRIOR_ODDS))

    def decoder_layers(self) -> list[DecoderLayer]:
        """The decoder, typed."""
        return [layer for layer in self.decoder if isinstance(layer, DecoderLayer)]

    def encode(self, maps: Tensor) -> Tensor:
        """Make a picture's points ready to be compared; done once per picture.

        Args:
            maps: (B, D, h, w) projected map; h and w multiples of the points' rows and columns.

        Returns:
            (B, N, P, C): one set of points per decoder layer.
        """
        window = (maps.shape[2] // self.points[0], maps.shape[3] // self.points[1])
        if window != (1, 1):
            maps = nn.functional.avg_pool2d(maps, window)
        chunks = [maps.flatten(2).transpose(1, 2)]  # (B, P, D)
        for layer in self.encoder:
            chunks.append(layer(chunks[-1]))
        projected = [layer.project(chunk) for layer, chunk in zip(self.decoder_layers(), chunks, strict=True)]
        return torch.stack(projected, dim=1)  # (B, N, P, C)

    def forward(self, tokens: Tensor, blocks: Sequence[Block]) -> list[Tensor]:
        """Score blocks of pairs within one batch; norms see the pairs of all blocks together.

        Args:
            tokens: (B, N, P, C) from `encode`.
            blocks: rows and columns of each block, as slices of the batch.

        Returns:
            Per block (rows, columns) logits.
        """
        total = tokens.new_zeros((), dtype=torch.float32)
        for index, layer in enumerate(self.decoder_layers()):
            points = tokens[:, index]  # (B, P, C)
            matches = torch.cat([layer.matches(points[rows], points[columns]) for rows, columns in blocks], dim=1)
            total = total + layer.judge(matches.float())  # (M, 1)
        logits = self.total(total).squeeze(1)  # (M,)
        shapes = [(len(tokens[rows]), len(tokens[columns])) for rows, columns in blocks]
        parts = logits.split([height * width for height, width in shapes])
        return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]

    def score(self, queries: Tensor, gallery: Tensor) -> Tensor:
        """Score every query with every gallery picture.

        Args:
            queries: (Q, N, P, C) from `encode`.
            gallery: (G, N, P, C).

        Returns:
            (Q, G) logits; `sigmoid(logits / 10)` is PORSCHE's reported score, in 0-1.
        """
        count = len(queries)
        block = (slice(0, count), slice(count, count + len(gallery)))
        (logits,) = self(torch.cat([queries, gallery]), [block])
        scores: Tensor = logits
        return scores
