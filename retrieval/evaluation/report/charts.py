"""Charts of the report as Vega-Lite, built with Altair. Their colours work on light and dark pages."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import altair as alt

from retrieval.evaluation.metric_table import MODEL, curve
from retrieval.evaluation.report.example_users import title
from retrieval.evaluation.report.item_map import OTHER, ItemMap
from retrieval.evaluation.result import Evaluation

Spec = dict[str, Any]

OWN: Final = "#3b82f6"
BASELINE: Final = "#f59e0b"
GREYS: Final = ("#8b98a9", "#a78b9b", "#7fa08c", "#a39a7c", "#8f8fb3", "#b08f8f")
DASHES: Final = ([1, 0], [1, 0], [6, 3], [2, 3], [8, 3, 2, 3], [12, 4], [4, 2], [2, 2])  # distinguish the greys
RANGES: Final = ("#312e81", "#3b5bdb", "#228be6", "#22b8cf", "#94d82d")  # from low to high
GROUPS: Final = ("#3b82f6", "#f59e0b", "#10b981", "#ef4444", "#a855f7", "#06b6d4", "#ec4899")
FADED: Final = "#9aa4b255"


def _values(rows: Sequence[Mapping[str, Any]]) -> alt.InlineData:
    return alt.InlineData(values=[dict(row) for row in rows])


def _spec(chart: Any) -> Spec:
    spec: Spec = chart.properties(width="container").to_dict()
    return spec


def _colours(evaluation: Evaluation) -> dict[str, str]:
    """Name -> colour; the model and the best baseline stand out."""
    others = [name for name in evaluation.rivals if name != evaluation.verdict.baseline]
    colours = {MODEL: OWN}
    if evaluation.verdict.baseline is not None:
        colours[evaluation.verdict.baseline] = BASELINE
    return colours | dict(zip(others, GREYS, strict=False))


def recall_against_k(evaluation: Evaluation) -> Spec:
    colours = _colours(evaluation)
    curves = {MODEL: curve(evaluation.exact, truth=evaluation.stage.truth)}
    curves |= {
        name: curve(baseline.measured, truth=evaluation.stage.truth) for name, baseline in evaluation.rivals.items()
    }
    rows = [{"model": name, "k": k, "recall": value} for name, points in curves.items() for k, value in points.items()]
    chart = (
        alt.Chart(_values(rows), height=480)
        .mark_line(strokeWidth=2.5)
        .encode(
            x=alt.X("k:Q", scale=alt.Scale(type="log", nice=False), axis=alt.Axis(values=[1, 2, 5, 10, 20, 50, 100])),
            y=alt.Y("recall:Q", axis=alt.Axis(format="%", tickCount=8), title="recall@k"),
            color=alt.Color(
                "model:N",
                scale=alt.Scale(domain=list(colours), range=list(colours.values())),
                legend=alt.Legend(title=None, orient="bottom", columns=3, symbolType="stroke", symbolStrokeWidth=2.5),
            ),
            strokeDash=alt.StrokeDash(
                "model:N", scale=alt.Scale(domain=list(colours), range=list(DASHES[: len(colours)])), legend=None
            ),
            opacity=alt.condition(
                alt.FieldOneOfPredicate(field="model", oneOf=list(colours)[:2]), alt.value(1.0), alt.value(0.65)
            ),
        )
    )
    # Dots large enough to point at.
    dots = chart.mark_point(filled=True, size=36).encode(
        strokeDash=alt.Undefined, tooltip=["model:N", "k:Q", alt.Tooltip("recall:Q", format=".4f")]
    )
    return _spec(chart + dots)


def differences(evaluation: Evaluation) -> Spec:
    """Gain over each baseline, with its interval."""
    metric = f"ndcg@{evaluation.k}"
    rows: list[dict[str, Any]] = []
    for name in evaluation.rivals:
        value, low, high = evaluation.drawn.difference(f"model {metric}", f"{name} {metric}")
        significance = "better" if low > 0 else "worse" if high < 0 else "not significant"
        rows.append({"baseline": name, "difference": value, "low": low, "high": high, "significance": significance})
    order = [row["baseline"] for row in sorted(rows, key=lambda row: float(row["difference"]))]
    base = alt.Chart(_values(rows), height=alt.Step(44))
    y = alt.Y("baseline:N", sort=order, title=None)
    colour = alt.Color(
        "significance:N",
        scale=alt.Scale(domain=["better", "not significant", "worse"], range=["#10b981", BASELINE, "#ef4444"]),
        legend=None,
    )
    zero = alt.Chart(_values([{"zero": 0}])).mark_rule(strokeDash=[4, 4], color="#8b98a9").encode(x="zero:Q")
    tooltip = ["baseline:N", *(alt.Tooltip(f"{name}:Q", format="+.4f") for name in ("difference", "low", "high"))]
    bars = base.mark_rule(strokeWidth=4, opacity=0.55).encode(
        x=alt.X("low:Q", title=f"gain in NDCG@{evaluation.k}", axis=alt.Axis(format="+~f", tickCount=5)),
        x2="high:Q",
        y=y,
        color=colour,
        tooltip=tooltip,
    )
    dots = base.mark_point(filled=True, size=110, opacity=1).encode(
        x="difference:Q", y=y, color=colour, tooltip=tooltip
    )
    return _spec(zero + bars + dots)


def slices(evaluation: Evaluation, parts: Sequence[Mapping[str, Any]], *, axis: str) -> Spec:
    """Recall by slice, of the model and of the best baseline."""
    baseline = evaluation.verdict.baseline
    order = [f"{part['slice']}|{part['truths']:,}" for part in parts]
    rows = []
    for name, part in zip(order, parts, strict=True):
        rows.append({"slice": name, "model": MODEL, "found": part["found"], "truths": part["truths"]})
        if baseline is not None:
            rows.append({"slice": name, "model": baseline, "found": part[baseline], "truths": part["truths"]})
    colours = {MODEL: OWN} if baseline is None else {MODEL: OWN, baseline: BASELINE}
    chart = (
        alt.Chart(_values(rows), height=240)
        .mark_bar(cornerRadiusEnd=3)
        .encode(
            x=alt.X(
                "slice:N", sort=order, title=axis, axis=alt.Axis(labelAngle=0, labelExpr="split(datum.label, '|')")
            ),
            xOffset=alt.XOffset("model:N", sort=list(colours)),
            y=alt.Y("found:Q", title=f"recall@{evaluation.k}", axis=alt.Axis(format="%")),
            color=alt.Color(
                "model:N",
                scale=alt.Scale(domain=list(colours), range=list(colours.values())),
                legend=alt.Legend(title=None, orient="bottom"),
            ),
            tooltip=["model:N", alt.Tooltip("found:Q", format=".1%"), alt.Tooltip("truths:Q", format=",")],
        )
    )
    return _spec(chart)


def popularity_bias(shares: Mapping[str, Mapping[str, float]]) -> Spec:
    """Shares of head, middle, tail and cold items. shares: model -> class -> share."""
    rows = [
        {"who": who, "class": label, "share": share, "order": place}
        for who, parts in shares.items()
        for place, (label, share) in enumerate(parts.items())
    ]
    chart = (
        alt.Chart(_values(rows), height=alt.Step(34))
        .mark_bar()
        .encode(
            y=alt.Y("who:N", sort=list(shares), title=None),
            x=alt.X("share:Q", stack="zero", axis=alt.Axis(format="%"), title=None, scale=alt.Scale(domain=[0, 1])),
            color=alt.Color(
                "class:N",
                scale=alt.Scale(
                    domain=["head", "middle", "tail", "cold"], range=["#1d4ed8", "#3b82f6", "#93c5fd", "#f59e0b"]
                ),
                legend=alt.Legend(title=None, orient="bottom", columns=4),
            ),
            order=alt.Order("order:Q"),
            tooltip=["who:N", "class:N", alt.Tooltip("share:Q", format=".1%")],
        )
    )
    return _spec(chart)


def _epochs(epochs: Sequence[Mapping[str, Any]]) -> alt.X:
    """The axis of epochs, the same in both charts."""
    ends = [epochs[0]["epoch"], epochs[-1]["epoch"]]
    axis = alt.Axis(tickMinStep=1, format="d", tickCount=8)
    return alt.X("epoch:Q", axis=axis, scale=alt.Scale(domain=ends, nice=False, padding=8))


def training_loss(epochs: Sequence[Mapping[str, Any]]) -> Spec:
    rows = [{"epoch": epoch["epoch"], "loss": epoch["train_loss"]} for epoch in epochs]
    chart = (
        alt.Chart(_values(rows), height=220)
        .mark_line(point=alt.OverlayMarkDef(size=22), color=GREYS[0], strokeWidth=2.5)
        .encode(
            x=_epochs(epochs),
            y=alt.Y("loss:Q", title="training loss", scale=alt.Scale(zero=False)),
            tooltip=["epoch:Q", alt.Tooltip("loss:Q", format=".4f")],
        )
    )
    return _spec(chart)


def validation(epochs: Sequence[Mapping[str, Any]]) -> Spec:
    """Validation metrics by epoch, with the kept epoch marked."""
    names = [name for name in ("recall@10", "ndcg@10") if all(name in epoch for epoch in epochs)]
    rows = [{"epoch": epoch["epoch"], "metric": name, "value": epoch[name]} for epoch in epochs for name in names]
    judge = names[-1]
    best = max(epochs, key=lambda epoch: float(epoch[judge]))
    lines = (
        alt.Chart(_values(rows), height=220)
        .mark_line(point=alt.OverlayMarkDef(size=22), strokeWidth=2.5)
        .encode(
            x=_epochs(epochs),
            y=alt.Y("value:Q", title="validation", axis=alt.Axis(tickCount=6)),
            color=alt.Color(
                "metric:N",
                scale=alt.Scale(domain=names, range=[GROUPS[5], OWN][-len(names) :]),
                legend=alt.Legend(title=None, orient="bottom"),
            ),
            tooltip=["epoch:Q", "metric:N", alt.Tooltip("value:Q", format=".4f")],
        )
    )
    mark = (
        alt.Chart(_values([{"epoch": best["epoch"]}]))
        .mark_rule(strokeDash=[4, 4], color="#10b981", strokeWidth=2)
        .encode(x=_epochs(epochs), tooltip=[alt.Tooltip("epoch:Q", title="kept epoch")])
    )
    return _spec(mark + lines)


def items(evaluation: Evaluation, drawn: ItemMap) -> Spec:
    """The item map."""
    popularity = evaluation.held.popularity
    rows = [
        {
            "x": round(float(place[0]), 4),
            "y": round(float(place[1]), 4),
            "item": title(evaluation, row),
            "group": group,
            "users": int(popularity[row]),
        }
        for row, place, group in zip(drawn.rows.tolist(), drawn.places, drawn.groups, strict=True)
    ]
    lows = {group: _low(group) for group in drawn.groups if group != OTHER}
    is_ordered = None not in lows.values()
    names = sorted(lows, key=lambda name: (lows[name] or 0.0, name))
    colours = dict(zip(names, RANGES if is_ordered and len(names) <= len(RANGES) else GROUPS, strict=False)) | (
        {OTHER: FADED} if OTHER in drawn.groups else {}
    )
    hidden = alt.Axis(labels=False, ticks=False, grid=False, domain=False, title=None)
    coloured = drawn.attribute is not None
    chart = (
        alt.Chart(_values(rows), height=460)
        .mark_circle(opacity=0.75)
        .encode(
            x=alt.X("x:Q", axis=hidden, scale=alt.Scale(zero=False, padding=20)),
            y=alt.Y("y:Q", axis=hidden, scale=alt.Scale(zero=False, padding=20)),
            size=alt.Size("users:Q", scale=alt.Scale(type="sqrt", range=[8, 260]), legend=None),
            color=alt.Color(
                "group:N",
                sort=list(colours),
                scale=alt.Scale(domain=list(colours), range=list(colours.values())),
                legend=alt.Legend(title=drawn.attribute, orient="bottom", columns=3, symbolOpacity=1),
            )
            if coloured
            else alt.value(OWN),
            tooltip=["item:N", *(["group:N"] if coloured else []), alt.Tooltip("users:Q", format=",")],
        )
        .interactive()
    )
    return _spec(chart)


def _low(label: str) -> float | None:
    """The lower bound of a range such as "1980 to 1989"; None for another label."""
    try:
        return float(label.split(" to ")[0])
    except ValueError:
        return None
