"""A run's report.html: one file that opens offline, in light and in dark, on paper and on a phone."""

import json
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from data.doctor import Report
from deploy.files import write_whole
from evaluate.protocol import Classified, Scored, Search
from evaluate.report import charts, evidence, history
from evaluate.report.pictures import Packed, Pictures
from params.defaults import FREE
from params.errors import dotted
from params.tree import leaves

FOLDER = Path(__file__).parent
UNKNOWN = {"epoch": 0, "step": 0, "steps": None, "best": None, "error": None, "heartbeat": 0}  # status.json damaged


class Facts(NamedTuple):
    """What is known of a run without looking at its images."""

    name: str
    status: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]]  # of metrics.jsonl
    resolved: Mapping[str, Any]  # its params
    changed: Collection[str]  # of their keys, those that differ from the defaults
    doctor: Sequence[Report | str]  # of each folder of archives; a line where it was not asked
    versions: Mapping[str, str]


def write_report(path: Path, facts: Facts, scored: Scored | None, packed: Packed) -> None:
    """Write the page, whole or not at all; `scored` is of the run's best snapshot, None where nothing is known of it.

    Raises DataError for an image that cannot be read.
    """
    text = _template().render(_history(facts) | (_evidence(scored, Pictures(packed)) if scored else {}))
    write_whole(path, lambda file: file.write(text.encode(errors="replace")))  # names of files may be no text


def _template() -> Any:
    environment = Environment(
        loader=FileSystemLoader(FOLDER), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True)
    environment.filters |= {"number": charts.number, "duration": _duration, "time": _time}
    environment.globals |= {"style": (FOLDER / "page.css").read_text(encoding="utf-8"), "charts": charts}
    return environment.get_template("page.html")


def _history(facts: Facts) -> dict[str, Any]:
    status = {**UNKNOWN, **facts.status}
    best = status["best"]
    return {
        "facts": facts,
        "status": status,
        "best": best,
        "times": history.times(facts.rows, (status["steps"] or 0) / facts.resolved["epoch"]),
        "curves": history.curves(facts.rows, best),
        "metrics": history.metrics(facts.rows, best["epoch"] if best else None),
        "params": [(dotted(path), json.dumps(value, ensure_ascii=False)) for path, value in leaves(facts.resolved)
                   if path[0] not in FREE],
        "scored": None, "intervals": [], "lists": {}, "pairs": None, "cameras": None, "confusion": None,
    }


def _evidence(scored: Scored, pictures: Pictures) -> dict[str, Any]:
    seen, found = scored.seen, {"scored": scored, "intervals": evidence.intervals(scored)}
    if isinstance(seen, Search):
        return found | {"pairs": evidence.pairs(seen), "cameras": evidence.cameras(seen),
                        "lists": evidence.rank_lists(seen, scored.values[scored.finest], pictures)}
    return found | ({"confusion": evidence.confusion(seen, pictures)} if isinstance(seen, Classified) else {})


def _duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 100:
        return f"{seconds:.3g} s"
    minutes, hours = seconds / 60, seconds / 3600
    return f"{minutes:.3g} min" if minutes < 100 else f"{hours:,.1f} h"


def _time(seconds: float) -> str:
    """Seconds since 1970 as a date and time."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"
