"""The conversion report as one self-contained HTML page with a timeline of every bag."""

from __future__ import annotations

from typing import Any

from corft_core.data.report import losses

_WIDTH, _LEFT, _ROW, _BAR = 1040, 130, 30, 20
_KEPT, _LEFT_OUT, _DAMAGED, _GAP, _RATE, _AGE = "#4c956c", "#c9ced6", "#d98c4a", "#c8372d", "#7aa5d8", "#5b3f8c"


def page(report: dict[str, Any]) -> str:
    """HTML of a report made by :func:`corft_core.data.report.summary`; needs no network and no other file."""
    from jinja2 import Environment, PackageLoader, select_autoescape
    from markupsafe import Markup

    environment = Environment(loader=PackageLoader("corft_core.data", "."), autoescape=select_autoescape(),
                              trim_blocks=True, lstrip_blocks=True)
    bags = []
    for index, bag in enumerate(report["bags"]):
        episodes = [entry for entry in report["episodes"] if entry["recording"] == index]
        bags.append(bag | {"episodes": episodes, "timeline": Markup(timeline(bag, episodes)), "outside": _outside(bag)})
    return environment.get_template("report_page.html").render(report=report, bags=bags, losses=losses(report))


def timeline(bag: dict[str, Any], episodes: list[dict[str, Any]]) -> str:
    """SVG: a row of episodes, then a row a stream: messages per time (bars), gaps (red), largest age (line)."""
    from markupsafe import escape

    duration_s = max(float(bag["duration_s"]), 1e-3)
    height = _ROW * (len(bag["streams"]) + 1) + 24

    def x(at_s: float) -> float:
        return round(_LEFT + (_WIDTH - _LEFT - 10) * min(max(at_s / duration_s, 0.0), 1.0), 1)

    def block(at_s: float, length_s: float, top: float, tall: float, colour: str, title: str) -> str:
        wide = max(1.0, round(x(at_s + length_s) - x(at_s), 1))
        return (f'<rect x="{x(at_s)}" y="{top:.1f}" width="{wide}" height="{tall:.1f}" fill="{colour}">'
                f"<title>{escape(title)}</title></rect>")

    parts = [f'<text x="0" y="{_BAR - 5}">episodes</text>']
    for entry in episodes:
        length_s = entry["length_s"] if entry["length_s"] is not None else duration_s - entry["at_s"]
        colour = _KEPT if entry["kept"] else _DAMAGED if entry["damaged"] else _LEFT_OUT
        parts.append(block(entry["at_s"], length_s, 0, _BAR, colour,
                           f"{entry['scene_id']}: {entry['reason'] or 'kept'}, {entry['at_s']:.1f} s"))
    for row, (name, stream) in enumerate(bag["streams"].items(), start=1):
        top = row * _ROW
        parts.append(f'<text x="0" y="{top + _BAR - 5}">{escape(name)}</text>')
        counts, bin_s = stream["timeline"]["messages"], bag["bin_s"]
        most = max(counts) or 1
        for number, count in enumerate(counts):
            if count:
                tall = max(1.5, _BAR * count / most)
                parts.append(block(number * bin_s, bin_s, top + _BAR - tall, tall, _RATE,
                                   f"{count / bin_s:.1f} messages a second"))
        parts += [block(gap["at_s"], gap["length_s"], top, _BAR, _GAP, f"gap of {gap['length_s']} s at {gap['at_s']} s")
                  for gap in stream.get("gap_list", ())]
        ages = stream["timeline"].get("max_age_s")
        if ages and max(ages) > 0:
            points = " ".join(f"{x((n + 0.5) * bin_s)},{top + _BAR * (1 - age / max(ages)):.1f}"
                              for n, age in enumerate(ages))
            parts.append(f'<polyline points="{points}" fill="none" stroke="{_AGE}" stroke-width="1">'
                         f"<title>largest age, up to {max(ages)} s</title></polyline>")
    axis = _ROW * (len(bag["streams"]) + 1)
    for fraction in (0.0, 0.25, 0.5, 0.75, 1.0):
        anchor = {0.0: "start", 1.0: "end"}.get(fraction, "middle")
        parts.append(f'<text x="{x(fraction * duration_s)}" y="{axis + 14}" text-anchor="{anchor}">'
                     f"{fraction * duration_s:.0f} s</text>")
    legend = "".join(f'<span class="key" style="background:{colour}"></span>{label}' for colour, label in (
        (_KEPT, "kept"), (_LEFT_OUT, "left out"), (_DAMAGED, "left out for damage"), (_RATE, "messages"), (_GAP, "gap"),
        (_AGE, "largest age of a sample when used")))
    return (f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="timeline">{"".join(parts)}</svg>'
            f'<p class="note">{legend}</p>')


def _outside(bag: dict[str, Any]) -> str:
    clipped = bag["clipped"]
    parts = [f"{name} on {count} steps" for name, count in (clipped["joint_steps"] or {}).items() if count]
    if clipped["gripper_commands"]:
        parts.append(f"{clipped['gripper_commands']} gripper commands (clipped)")
    return ", ".join(parts)
