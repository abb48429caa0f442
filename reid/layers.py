"""Robust spatial convolution (PAM): layers that run on tiles which do not see their neighbours."""

from __future__ import annotations

from torch import Tensor, nn


def split_tiles(maps: Tensor, tiles: int) -> Tensor:
    """Cut maps into `tiles` x `tiles` equal tiles stacked on the batch axis.

    Args:
        maps: (B, C, H, W) float; H and W divisible by `tiles`.
        tiles: tiles per side; 1 leaves the maps as they are.

    Returns:
        (B * tiles**2, C, H / tiles, W / tiles): the tiles of one picture lie together, row by row.

    Raises:
        ValueError: H or W is not divisible by `tiles`.
    """
    if tiles == 1:
        return maps
    batch, channels, height, width = maps.shape
    if height % tiles or width % tiles:
        raise ValueError(f"maps of {height}x{width} don't divide into {tiles}x{tiles} equal tiles")
    grid = maps.reshape(batch, channels, tiles, height // tiles, tiles, width // tiles)  # (B, C, n, h, n, w)
    return grid.permute(0, 2, 4, 1, 3, 5).flatten(0, 2)  # (B n n, C, h, w)


def join_tiles(parts: Tensor, tiles: int) -> Tensor:
    """Put tiles back in place: the inverse of `split_tiles`.

    Args:
        parts: (B * tiles**2, C, h, w) float, in the order `split_tiles` gives.
        tiles: tiles per side.

    Returns:
        (B, C, h * tiles, w * tiles).
    """
    if tiles == 1:
        return parts
    grid = parts.reshape(-1, tiles, tiles, *parts.shape[1:])  # (B, n, n, C, h, w)
    return grid.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)  # (B, C, n h, n w)


def run_on_tiles(layer: nn.Module, maps: Tensor, tiles: int) -> Tensor:
    """Run a layer on each tile alone (PORSCHE, robust spatial convolution).

    Batch norms in the layer see all tiles as one batch, so their statistics are those of whole maps;
    only the convolutions' padding differs.

    Args:
        layer: maps (B, C, H, W) to (B, C', H / s, W / s).
        maps: (B, C, H, W) float.
        tiles: tiles per side; 1 runs the whole map.

    Returns:
        (B, C', H / s, W / s) float.
    """
    return join_tiles(layer(split_tiles(maps, tiles)), tiles)
