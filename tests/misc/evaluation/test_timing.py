from misc.evaluation import timing
from misc.evaluation.timing import alternate, latencies_in_turn


def test_measures_take_turns_and_a_slow_period_counts_for_none():
    calls = []

    def measure(name: str) -> dict[str, float]:
        calls.append(name)
        return {"encode_ms": 100 if len(calls) in (3, 4, 5) else len(calls)}

    assert latencies_in_turn([lambda: measure("a"), lambda: measure("b")], unit="students") == [
        {"encode_ms": 9},  # of 1, 100, 100, 7 and 9
        {"encode_ms": 8},  # of 2, 100, 6, 8 and 10
    ]
    assert calls == ["a", "b"] * 5
    assert latencies_in_turn([], unit="students") == []


def test_sides_alternate_and_warm_up_rounds_do_not_count(monkeypatch):
    clock, calls = [0.0], []

    def step(name: str, seconds: float) -> None:
        calls.append(name)
        clock[0] += seconds * (10 if len(calls) <= 4 else 1)  # slow at first

    monkeypatch.setattr(timing, "now", lambda device: clock[0])
    times = alternate({"a": lambda: step("a", 1), "b": lambda: step("b", 2)}, rounds=3, warm_up=2)
    assert times == {"a": [1000] * 3, "b": [2000] * 3}
    assert calls == ["a", "b"] * 5
