"""The harness that kills trainings, in small; its report of 50 kills is in docs/robustness.md."""

import jax
import pytest

from experiments import chaos
from slams_jax.training import read_metrics


@pytest.mark.slow
def test_a_killed_training_ends_as_if_it_had_not_been(tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", jax.config.jax_compilation_cache_dir)
    monkeypatch.setenv("XLA_FLAGS", "")

    def in_a_save(training, process, rng, start_up):
        training.wait(process, lambda: training.reached() >= 2 * chaos.EVERY)
        training.wait(process, training.is_saving)

    monkeypatch.setattr(chaos, "_await_moment", in_a_save)
    report = chaos.run(tmp_path, 1, steps=4 * chaos.EVERY, seed=0)
    assert report["kills"] == 1
    assert report["bit_exact"]
    assert report["differences"] == []
    assert 0 <= report["lost_steps"] <= chaos.EVERY
    assert report["kills_before_first_step"] == report["damaged"] == 0
    straight, killed = (tmp_path / name / "score" for name in ("straight", "killed"))
    steps = [r["step"] for r in read_metrics(killed / "metrics.jsonl")]
    assert steps == list(range(1, report["steps"] + 1))

    # And it would see a difference.
    path = killed / "metrics.jsonl"
    path.write_text(path.read_text().replace('"loss": 0', '"loss": 1', 1))
    assert chaos.compare(straight, killed) == ["metrics.jsonl"]
    assert chaos.compare(straight, straight) == []
