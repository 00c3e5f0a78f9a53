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
from params.defaults import flat

FOLDER = Path(__file__).parent
UNKNOWN = {  # where status.json is damaged, or of an earlier version
    "epoch": 0, "step": 0, "steps": None, "best": None, "error": None, "heartbeat": None, "versions": None,
    "device": None}


class Facts(NamedTuple):
    """What is known of a run without looking at its images."""

    name: str
    status: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]]  # of metrics.jsonl
    resolved: Mapping[str, Any]  # its params
    changed: Collection[str]  # of their keys, those that differ from the defaults
    doctor: Sequence[Report | str]  # of each folder of archives; a line where it was not asked


def write_report(path: Path, facts: Facts, scored: Scored | str | None, packed: Packed) -> None:
    """Write the page, whole or not at all.

    `scored` is what the evaluator says of the run's best snapshot, or a line that says why that is not known, or
    None where the evaluator gives metrics alone.
    Raises DataError for an image that cannot be read.
    """
    text = _template().render(_history(facts) | _evidence(facts, scored, Pictures(packed)))
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
        "not_finite": history.not_finite(facts.rows),
        "metrics": history.metrics(facts.rows, best["epoch"] if best else None),
        "exports": history.exports(facts.rows, best["metric"] if best else None),
        "params": {key: json.dumps(value, ensure_ascii=False) for key, value in flat(facts.resolved).items()},
    }


def _evidence(facts: Facts, scored: Scored | str | None, pictures: Pictures) -> dict[str, Any]:
    section = facts.resolved["evaluation_params"]
    silent = f"{section['type']} does not say what its metrics are the means of" if section else "no evaluator is named"
    found: dict[str, Any] = {"scored": None, "intervals": [], "lists": {}, "pairs": None, "cameras": None,
                             "confusion": None, "unknown": scored if isinstance(scored, str) else silent}
    if not isinstance(scored, Scored):
        return found
    seen, found = scored.seen, found | {"scored": scored, "intervals": evidence.intervals(scored)}
    if isinstance(seen, Search):
        scores = scored.values.get(scored.ranked_by)
        return found | {"pairs": evidence.pairs(seen), "cameras": evidence.cameras(seen),
                        "lists": {} if scores is None else evidence.rank_lists(seen, scores, pictures)}
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
