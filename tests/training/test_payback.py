"""Whether compilation pays, judged by steps, measured times and estimates."""

from __future__ import annotations

import pytest
import small

from sqakd.training.code_cache import Times
from sqakd.training.payback import count_layers, payback


def pays(known: Times, *, steps: int, eager: float = 0.1, graphs: int = 1) -> bool:
    return payback(known, eager=eager, steps=steps, networks=[small.quantized()], graphs=graphs).pays


def test_known_times_decide() -> None:
    known = Times(cold=60, warm=6, eager=0.1, compiled=0.05)
    least = 180  # 1.5 * 6 / 0.05: each step saves half of its time, and the code is there already
    assert pays(known, steps=least + 2)
    assert not pays(known, steps=least - 2)
    assert not pays(known, steps=least + 2, graphs=2)


def test_a_faster_machine_saves_a_share_of_its_own_step() -> None:
    estimate = payback(Times(warm=6, eager=1, compiled=0.5), eager=0.1, steps=100, networks=[], graphs=1)
    assert estimate.saves == pytest.approx(100 * 0.05)


def test_a_step_that_was_not_faster_is_not_compiled_again() -> None:
    assert not pays(Times(cold=60, warm=1, eager=0.1, compiled=0.11), steps=10**7)


def test_estimates_replace_unknown_times() -> None:
    networks = [small.quantized(), small.network()]
    assert count_layers(networks) == (6, 10)
    new = payback(Times(), eager=0.1, steps=1000, networks=networks, graphs=1)
    compiled_before = payback(Times(cold=50), eager=0.1, steps=1000, networks=networks, graphs=1)
    floats = payback(Times(), eager=0.1, steps=1000, networks=networks[1:], graphs=1)
    assert not new.cached
    assert compiled_before.cached
    assert compiled_before.costs < new.costs
    assert floats.costs < new.costs
    assert floats.saves < new.saves < 100


def test_evaluation_pays_by_its_share_of_the_images() -> None:
    estimate = payback(Times(warm=6, eager=1, compiled=0.5), eager=0.1, steps=1000, networks=[], graphs=1)
    least = 1.5 * 6 / 50  # the step saves 50 s
    assert estimate.pays_for(1.1 * least)
    assert not estimate.pays_for(0.9 * least)


def test_the_digits_demo_is_not_compiled_and_a_long_run_is() -> None:
    networks = [small.quantized(), small.network()]
    assert not payback(Times(), eager=0.2, steps=16 * 23, networks=networks, graphs=1).pays
    assert payback(Times(), eager=0.2, steps=100 * 196, networks=networks, graphs=1).pays
