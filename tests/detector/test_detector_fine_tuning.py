"""Made ready for training, a checkpoint still computes what it did, for the classes that are kept."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from detector.dataset import TRAINED_CLASSES
from detector.quiet import quiet_libraries
from detector.yolo import DetectorError, VehicleDetector
from tests.detector.detector_builders import COCO_NAMES

quiet_libraries()
from ultralytics.nn.tasks import DetectionModel  # noqa: E402

from detector.export import load_trained, save_half  # noqa: E402  # imports the library, which has to be quiet
from detector.fine_tuning import vehicle_network  # noqa: E402

KEPT = list(map(str, TRAINED_CLASSES))
PICTURES = torch.rand(4, 3, 64, 96, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    made = DetectionModel("yolo11n.yaml", nc=80, verbose=False)
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):  # as after training: not the identity
            module.running_mean = torch.randn_like(module.bias) * 0.1
            module.running_var = torch.rand_like(module.bias) + 0.5
    made.names = COCO_NAMES
    ready: nn.Module = made.eval()
    return ready


def _saved(network: nn.Module, path: Path) -> Path:
    torch.save({"model": network}, path)
    return path


@pytest.mark.parametrize("folded", [False, True], ids=["with normalisation", "folded"])
def test_kept_classes_are_computed_as_before(network: nn.Module, tmp_path: Path, folded: bool) -> None:
    source: nn.Module = torch.load(_saved(network, tmp_path / "x.pt"), weights_only=False)["model"]
    if folded:
        source = source.fuse(verbose=False)  # type: ignore[operator]  # the library's own method
    path = _saved(source, tmp_path / "source.pt")
    with torch.no_grad():
        before = network(PICTURES)[0]
        after = vehicle_network(path, KEPT, PICTURES).eval()(PICTURES)[0]
    rows = [0, 1, 2, 3, *(4 + number for number, name in COCO_NAMES.items() if name in KEPT)]
    assert torch.allclose(after, before[:, rows], atol=1e-2)
    assert torch.allclose(after[:, 4:], before[:, rows[4:]], atol=1e-4)


def test_a_restored_network_is_the_same_in_training(network: nn.Module, tmp_path: Path) -> None:
    source: nn.Module = torch.load(_saved(network, tmp_path / "x.pt"), weights_only=False)["model"]
    folded = source.fuse(verbose=False)  # type: ignore[operator]  # the library's own method
    ready = vehicle_network(_saved(folded, tmp_path / "folded.pt"), KEPT, PICTURES)
    norms = [module for module in ready.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms
    assert all(parameter.isfinite().all() for parameter in ready.parameters())
    with torch.no_grad():
        first = ready.eval()(PICTURES)[0]
        for norm in norms:
            norm.train()
        assert torch.allclose(ready(PICTURES)[0][:, 4:], first[:, 4:], atol=1e-3)


def test_the_head_loses_only_other_classes(network: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="tram"):
        vehicle_network(_saved(network, tmp_path / "x.pt"), [*KEPT, "tram"], PICTURES)


def test_what_ships_loads_without_this_package(network: nn.Module, tmp_path: Path) -> None:
    ready = vehicle_network(_saved(network, tmp_path / "x.pt"), KEPT, PICTURES)
    torch.save({"ema": ready, "epoch": 3}, tmp_path / "last.pt")
    save_half(load_trained(tmp_path / "last.pt"), tmp_path / "shipped.pt")
    shipped = torch.load(tmp_path / "shipped.pt", weights_only=False)["model"]
    assert type(shipped) is DetectionModel
    assert {parameter.dtype for parameter in shipped.parameters()} == {torch.float16}
    assert VehicleDetector(tmp_path / "shipped.pt").image_size == (384, 640)


def test_what_is_no_checkpoint_is_named(tmp_path: Path) -> None:
    for name in ("notes.toml", "holiday.pt"):
        (tmp_path / name).write_text("no network", encoding="utf-8")
        with pytest.raises(DetectorError, match=name) as caught:
            vehicle_network(tmp_path / name, KEPT, PICTURES)
        assert "\n" not in str(caught.value)
