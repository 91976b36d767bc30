"""samples/quickstart.py runs as it stands; only its video is made smaller here."""

import importlib.util
from pathlib import Path

import diffusers

SCRIPT = Path(__file__).parents[3] / "samples" / "quickstart.py"


def test_quickstart(tmp_path, monkeypatch, capsys):
    real = diffusers.WanPipeline.__call__

    def smaller(self, *arguments, **named):
        self.set_progress_bar_config(disable=True)
        return real(self, *arguments, **(named | {"num_frames": 5, "num_inference_steps": 2}))

    monkeypatch.setattr(diffusers.WanPipeline, "__call__", smaller)
    spec = importlib.util.spec_from_file_location("quickstart", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    report = script.main(output=str(tmp_path / "q.mp4"))
    assert report.sparse_calls == report.dense_calls > 0
    assert not report.fallbacks
    assert (tmp_path / "q.mp4").stat().st_size > 0
    assert "sparse calls" in capsys.readouterr().out
