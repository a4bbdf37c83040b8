"""The rows of the sweep as people read them: a table by type, what is not as it must be, and one line of counts."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tests.sweep.odd import NO_MAPS, PROBED

Row = Mapping[str, Any]


def attends(row: Row) -> bool:
    """Whether attention over keys ran, as the witness saw it (or was read by a probe, which no kernel tells)."""
    return bool(ran(row))


def ran(row: Row) -> int:
    """How many attention maps ran, as the witness counted them."""
    if row["type"] in PROBED:
        return PROBED[row["type"]]
    return int(row["kernels"] + row["products"]) - NO_MAPS.get(row["type"], 0)


def captured(row: Row) -> int:
    """How many maps were captured."""
    return sum(finding["calls"] for finding in row["findings"] if finding["kind"] != "other")


def exact(row: Row) -> int:
    """How many of them are proved exactly."""
    return sum(finding["calls"] for finding in row["findings"] if finding["grade"] == "exact")


def others(row: Row) -> list[str]:
    """What lets positions look at one another without a softmax over keys, as the doctor names it."""
    return sorted({finding["reason"] for finding in row["findings"] if finding["kind"] == "other"})


def faults(row: Row) -> list[str]:
    """What is not as it must be."""
    if row["stage"] == "not built":
        return []
    if row["stage"] != "ran":
        return [f"{row['stage']}: {row['reason']}"]
    found = [
        f"{f['module']} {f['grade']}: {f['reason']}" for f in row["findings"] if f["grade"] not in ("exact", "none")
    ]
    if captured(row) != ran(row):
        found.append(f"{ran(row)} maps ran, {captured(row)} captured")
    found += [
        what for what, held in (("output differs", row["identical"]), ("model changed", row["unchanged"])) if not held
    ]
    if ran(row) and not row["traces"].endswith("maps"):
        found.append(f"no trace: {row['traces']}")
    if str(row.get("together", "")).startswith("differs"):
        found.append(f"two inputs in one batch: {row['together']}")
    if str(row.get("intervened", "")).startswith("differs"):
        found.append(f"interventions: {row['intervened']}")
    return found


def near_uniform(row: Row) -> bool:
    """Whether the attention is so near to uniform that a map proves little."""
    return row.get("spread") is not None and row["spread"] < 0.1


def lines(rows: Iterable[Row]) -> list[str]:
    """One line a type."""
    return [_line(row) for row in sorted(rows, key=lambda row: str(row["type"]))]


def _line(row: Row) -> str:
    if row["stage"] == "not built":
        return f"{row['type']:40} not built: {row['reason']}"
    if faults(row):
        return f"{row['type']:40} FAULT: {'; '.join(faults(row))}"
    errors = [f["error"] for f in row["findings"] if f["error"] is not None]
    proof = f"worst {max(errors):.0e}" if errors else "no attention over keys"
    backends = ", ".join(sorted({f["backend"] for f in row["findings"] if f["backend"]}))
    inputs = " ".join(f"{name}{shape}" for name, shape in row["inputs"].items() if "mask" not in name)
    also = f"; {', '.join(others(row))}" if others(row) else ""
    return f"{row['type']:40} {exact(row):3} of {ran(row):3} exact, {proof:12} {backends}{also} | {inputs}"


def last_line(rows: Sequence[Row], seconds: float) -> str:
    """The counts of the whole sweep."""
    forward = [row for row in rows if row["stage"] == "ran"]
    attending = [row for row in forward if ran(row)]
    return (
        f"{len(forward)} of {len(rows)} types ran forward ({len(rows) - len(forward)} not built), "
        f"{len(attending)} attend: "
        f"{sum(map(exact, attending))} of {sum(map(ran, attending))} maps captured and exact, "
        f"{sum(row['identical'] for row in forward)} of {len(forward)} outputs identical, "
        f"{sum(row['unchanged'] for row in forward)} of {len(forward)} models unchanged, "
        f"{sum(bool(others(row)) for row in forward)} types with mixing that is no attention (named), "
        f"{sum(row.get('together') == 'yes' for row in attending)} with the same traces for two inputs in one batch "
        f"({sum(row.get('together') == 'refused' for row in attending)} refused), "
        f"{sum(row.get('intervened') in ('yes', 'no effect') for row in attending)} with heads that take their own "
        f"outputs back without changing a bit ({sum(row.get('intervened') == 'yes' for row in attending)} change when "
        f"silenced, {sum(str(row.get('intervened')).startswith('refused') for row in attending)} refuse), "
        f"{sum(map(near_uniform, attending))} near uniform, "
        f"{sum(bool(faults(row)) for row in rows)} faults, {seconds:.0f} s"
    )
