"""What an export leaves on disk, and when it leaves nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from typer import Typer
from typer.testing import CliRunner

from reid import export as export_module
from reid.checkpoint import load_network, save_network
from reid.embedder import Embedder, EmbedderError
from reid.export import ExportError, export, main
from reid.export_parity import Parity, parity
from reid.export_parts import Part
from reid.export_writers import write_openvino, write_tensorrt
from reid.exported_folder import Runtime
from reid.modality import Modality
from reid.model import Porsche
from tests.reid.reid_builders import network, picture, weights

MATCHER = {"layers": 2, "feed_forward": 8, "head": 8, "rows": 4, "columns": 2, "channels": 4}
STAGES = [{"layer": "layer1", "dimension": 16}, {"layer": "layer2", "dimension": 8}]


def saved(folder: Path, made: Porsche) -> Path:
    save_network(folder / "tiny.pt", made, "random")
    return folder / "tiny.pt"


def fail(part: Part, folder: Path) -> None:
    (folder / f"{part.name}.xml").write_text("half a file")
    raise KeyboardInterrupt


def test_a_folder_without_a_matcher_holds_no_more_than_embeddings_need(tmp_path: Path) -> None:
    compared = export(weights(tmp_path), tmp_path / "out")
    assert compared.stored.vectors < 1e-3
    stems = {f"stem_{m.value}{end}" for m in Modality for end in (".xml", ".bin")}
    names = {file.name for file in (tmp_path / "out").iterdir()}
    assert names == stems | {"trunk.xml", "trunk.bin", "metadata.json"}


def test_a_matcher_adds_its_decoder_and_nothing_twice(tmp_path: Path) -> None:
    compared = export(saved(tmp_path, network(matcher=MATCHER)), tmp_path / "out")
    assert compared.computed.largest < 1e-4
    assert compared.stored.tokens < 4e-3
    assert {f.name for f in (tmp_path / "out").iterdir() if "stem" not in f.name} == {
        "trunk.xml",
        "trunk.bin",
        "matcher.npz",
        "metadata.json",
    }


def test_tokens_may_come_of_another_stage_than_the_embedding(tmp_path: Path) -> None:
    made = network(stages=STAGES, embedding_stages=(0,), matching_stage=1, matcher={**MATCHER, "rows": 2})
    path = saved(tmp_path, made)
    assert export(path, tmp_path / "out").computed.largest < 1e-4
    crop, bands = [picture(0)], [Modality.THERMAL]
    for embedder in (Embedder(path), Embedder(tmp_path / "out")):
        assert embedder.info.points == (2, 4, 4)
        np.testing.assert_allclose(embedder.embed(crop, bands), embedder.describe(crop, bands).vectors, atol=2e-2)


def test_embedding_runs_nothing_that_only_tokens_need() -> None:
    made = network(stages=STAGES, embedding_stages=(0,), matching_stage=1, matcher={**MATCHER, "rows": 2})
    made.trunk.shared["layer2"].register_forward_pre_hook(lambda *_: pytest.fail("the other stage's layer ran"))
    made.branches["1"].register_forward_pre_hook(lambda *_: pytest.fail("the other stage ran"))
    with torch.no_grad():
        made.embed({Modality.VISIBLE: torch.zeros(1, 3, 64, 64)})


def test_an_interrupted_export_leaves_the_old_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = weights(tmp_path)
    export(path, tmp_path / "out")
    before = Embedder(tmp_path / "out").embed([picture(0)], [Modality.VISIBLE])
    monkeypatch.setattr(export_module, "WRITERS", {Runtime.OPENVINO: fail})
    with pytest.raises(KeyboardInterrupt):
        export(path, tmp_path / "out")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["out", "tiny.pt"]
    np.testing.assert_array_equal(Embedder(tmp_path / "out").embed([picture(0)], [Modality.VISIBLE]), before)


def test_a_killed_export_leaves_no_folder_under_the_name(tmp_path: Path) -> None:
    path = weights(tmp_path)
    code = (
        "import os, signal; from pathlib import Path; from reid import export as e\n"
        "def die(part, folder):\n    (folder / 'trunk.xml').write_text('<net'); os.kill(os.getpid(), signal.SIGKILL)\n"
        f"e.WRITERS = {{e.Runtime.OPENVINO: die}}; e.export(Path({str(path)!r}), Path({str(tmp_path / 'out')!r}))"
    )
    ended = subprocess.run([sys.executable, "-c", code], check=False, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert ended.returncode == -signal.SIGKILL
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("metadata", [None, "{}", '{"format": "of another program"}'])
def test_a_folder_that_is_no_export_is_never_replaced(tmp_path: Path, metadata: str | None) -> None:
    path, out = weights(tmp_path), tmp_path / "thesis"
    out.mkdir()
    (out / "chapter1.tex").write_text("years of work")
    if metadata is not None:
        (out / "metadata.json").write_text(metadata)
    with pytest.raises(ExportError, match="thesis: exists and is no export"):
        export(path, out)
    assert (out / "chapter1.tex").read_text() == "years of work"
    with pytest.raises(ExportError, match=r"tiny\.pt: exists and is no export"):
        export(path, path)


def test_an_empty_folder_may_become_an_export(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    export(weights(tmp_path), tmp_path / "out")
    assert Embedder(tmp_path / "out").info.dimension == 16


def test_an_export_that_differs_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_module, "parity", lambda *_: Parity(vectors=2e-3))
    with pytest.raises(ExportError, match="differs too much from torch: embeddings by 2"):
        export(weights(tmp_path), tmp_path / "out")
    assert [file.name for file in tmp_path.iterdir()] == ["tiny.pt"]


@pytest.mark.parametrize("bad", [Parity(float("nan")), Parity(0.0, float("nan")), Parity(0.0, 0.0, float("nan"))])
def test_a_difference_that_is_no_number_is_no_parity(bad: Parity) -> None:
    assert not export_module.Exported(bad, bad).close


def test_parity_tells_other_weights_apart(tmp_path: Path) -> None:
    path = saved(tmp_path, network(matcher=MATCHER))
    export(path, tmp_path / "out")
    assert parity(load_network(path)[0], tmp_path / "out").largest < 4e-3
    other = load_network(path)[0]
    torch.nn.init.normal_(other.matchers["0"].decoder[0].prior, std=3)  # type: ignore[index, union-attr]
    found = parity(other, tmp_path / "out")
    assert found.vectors < 1e-3
    assert found.scores > 1e-3


def test_torchs_fast_path_is_put_back(tmp_path: Path) -> None:
    assert torch.backends.mha.get_fastpath_enabled()
    with pytest.raises(Exception, match="meant to fail"):
        write_openvino(Part("broken", _Broken(), torch.zeros(2, 3), "maps", ("embedding",)), tmp_path)
    assert torch.backends.mha.get_fastpath_enabled()


class _Broken(torch.nn.Module):
    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        raise ValueError(f"meant to fail on {maps.dtype}")


def test_folders_of_before_the_matcher_still_load(tmp_path: Path) -> None:
    export(weights(tmp_path), tmp_path / "out")
    metadata = tmp_path / "out" / "metadata.json"
    values = json.loads(metadata.read_text())
    assert values.pop("points") is None
    metadata.write_text(json.dumps(values))
    assert Embedder(tmp_path / "out").info.points is None


def test_what_is_missing_for_tensorrt_is_one_line(tmp_path: Path) -> None:
    part = Part("trunk", torch.nn.Identity(), torch.zeros(2, 3), "maps", ("embedding",))
    with pytest.raises((ExportError, EmbedderError), match=r"TensorRT export needs (tensorrt|an NVIDIA GPU)"):
        write_tensorrt(part, tmp_path)


def test_the_command_prints_what_it_made(tmp_path: Path) -> None:
    app = Typer()
    app.command()(main)
    path = saved(tmp_path, network(matcher=MATCHER))
    done = CliRunner().invoke(app, ["--weights", str(path), "--to", "openvino", "--time", "--threads", "1"])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "tiny_openvino_model").is_dir()
    assert "tokens by" in done.output
    assert "ms to score 20 candidates" in done.output
    two = CliRunner().invoke(app, ["--weights", str(path), "--to", "openvino", "--to", "onnx", "--out", "x"])
    assert isinstance(two.exception, ExportError)
