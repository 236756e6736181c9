"""A ledger as one HTML page that loads nothing: the mix as a bar, the sizes as a histogram, and the tables."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from trainer.ledger import Ledger
from trainer.ledger_tables import Table, tables_of, token_histogram

# Okabe and Ito (2008): told apart by the colour-blind too; then again, paler.
_COLOURS = (
    "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#b8a800", "#7f7f7f", "#004c78", "#9a6a00",
    "#00694d", "#8a4f70", "#39789b", "#8e3f00", "#5f5700", "#4d4d4d",
)  # fmt: skip
_WIDTH, _BAR_HEIGHT, _PLOT_HEIGHT = 960, 44, 220


def to_html(ledger: Ledger) -> str:
    """The whole page. The same ledger gives the same bytes."""
    facts, *tables = tables_of(ledger)
    title = f"The corpus of {ledger.repository}"
    parts = [f"<h1>{escape(title)}</h1>", _table(facts)]
    mix = list(ledger.mix().items())
    if mix:
        parts += ["<h2>What is learnt, by tokens</h2>", _mix(mix)]
    parts += ["<h2>Examples by size</h2>", _histogram(token_histogram(ledger))]
    parts += [f"<h2>{escape(table.title.capitalize())}</h2>{_table(table)}" for table in tables]
    return _PAGE.replace("@TITLE@", escape(title)).replace("@BODY@", "\n".join(parts))


def _mix(mix: Sequence[tuple[str, int]]) -> str:
    """One bar of all tokens, and what each colour is."""
    total = sum(tokens for _, tokens in mix) or 1
    shapes, labels, x = [], [], 0.0
    for number, (kind, tokens) in enumerate(mix):
        colour, width = _COLOURS[number % len(_COLOURS)], _WIDTH * tokens / total
        told = f"{kind}: {tokens:,} tokens, {tokens / total:.1%}"
        shapes.append(
            f'<rect x="{x:.1f}" y="0" width="{max(width, 0.5):.1f}" height="{_BAR_HEIGHT}" fill="{colour}">'
            f"<title>{escape(told)}</title></rect>"
        )
        labels.append(
            f'<li><span class="key" style="background:{colour}"></span>{escape(kind)} '
            f'<span class="figure">{tokens / total:.1%}</span></li>'
        )
        x += width
    svg = f'<svg viewBox="0 0 {_WIDTH} {_BAR_HEIGHT}" role="img" aria-label="the mix by tokens">{"".join(shapes)}</svg>'
    return f'{svg}<ul class="legend">{"".join(labels)}</ul>'


def _histogram(bars: Sequence[tuple[int, int, int, int]]) -> str:
    """Raw text below, conversations on top; heights are counts."""
    most = max((raw + chat for _, _, raw, chat in bars), default=0) or 1
    top = _nice(most)
    left, right, bottom, head = 56, 8, 28, 8
    plot, step = _WIDTH - left - right, (_WIDTH - left - right) / max(1, len(bars))
    shapes: list[str] = []
    for share in (0, 0.25, 0.5, 0.75, 1):
        y = head + _PLOT_HEIGHT * (1 - share)
        shapes.append(f'<line class="grid" x1="{left}" y1="{y:.1f}" x2="{left + plot}" y2="{y:.1f}"/>')
        shapes.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{top * share:,.0f}</text>')
    every = max(1, -(-len(bars) // 12))
    for number, (start, end, raw, chat) in enumerate(bars):
        x = left + number * step
        told = escape(f"{start:,} to {end - 1:,} tokens: {raw:,} raw texts, {chat:,} conversations")
        y = head + float(_PLOT_HEIGHT)
        for count, colour in ((raw, _COLOURS[0]), (chat, _COLOURS[1])):
            height = _PLOT_HEIGHT * count / top
            y -= height
            if count:
                shapes.append(
                    f'<rect x="{x + 1:.1f}" y="{y:.1f}" width="{step - 2:.1f}" height="{height:.1f}" fill="{colour}">'
                    f"<title>{told}</title></rect>"
                )
        if number % every == 0:
            shapes.append(f'<text x="{x:.1f}" y="{head + _PLOT_HEIGHT + 18}">{start:,}</text>')
    size = f"0 0 {_WIDTH} {head + _PLOT_HEIGHT + bottom}"
    keys = "".join(
        f'<li><span class="key" style="background:{colour}"></span>{name}</li>'
        for name, colour in (("raw text", _COLOURS[0]), ("conversations", _COLOURS[1]))
    )
    svg = f'<svg viewBox="{size}" role="img" aria-label="examples by tokens">{"".join(shapes)}</svg>'
    return f'{svg}<ul class="legend">{keys}<li class="quiet">across: tokens of an example; up: how many</li></ul>'


def _nice(most: int) -> int:
    """The next round number that a quarter of is whole: 4, 8, 12, 16, 20, 24, 32, 40, 60, 80, 120 ..."""
    size = 1
    while 32 * size < most:
        size *= 10
    return next(factor * size for factor in (4, 8, 12, 16, 20, 24, 32) if factor * size >= most)


def _table(table: Table) -> str:
    def row(cells: Sequence[str], tag: str) -> str:
        kinds = [""] * (len(cells) - table.numbers) + [' class="number"'] * table.numbers
        told = (f"<{tag}{kind}>{escape(cell)}</{tag}>" for kind, cell in zip(kinds, cells, strict=True))
        return f"<tr>{''.join(told)}</tr>"

    head = f"<thead>{row(table.head, 'th')}</thead>" if any(table.head) else ""
    body = "".join(row(cells, "td") for cells in table.rows)
    return f'<div class="wide"><table>{head}<tbody>{body}</tbody></table></div>'


_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>nightschool: @TITLE@</title>
<meta name="viewport" content="width=device-width"><style>
:root{--ink:#1b1f24;--paper:#fff;--line:#d0d7de;--head:#f6f8fa;--quiet:#57606a}
@media(prefers-color-scheme:dark){:root{--ink:#e6edf3;--paper:#0d1117;--line:#30363d;--head:#161b22;--quiet:#8b949e}}
body{font:15px/1.5 system-ui,sans-serif;max-width:64rem;margin:2rem auto;padding:0 1rem;color:var(--ink);
background:var(--paper)}
h1{font-size:1.6rem}h2{font-size:1.15rem;margin:2rem 0 .6rem}.wide{overflow-x:auto}
table{border-collapse:collapse;font-size:14px}td,th{border-bottom:1px solid var(--line);padding:.25rem .9rem .25rem 0;
text-align:left;vertical-align:top;overflow-wrap:anywhere}th{color:var(--quiet);font-weight:600}
.number{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap;padding-left:.9rem;padding-right:0}
svg{width:100%;display:block}svg text{font-size:12px;fill:var(--quiet)}.grid{stroke:var(--line);stroke-width:1}
.legend{list-style:none;padding:0;margin:.6rem 0;display:flex;flex-wrap:wrap;gap:.3rem 1.2rem;font-size:14px}
.key{display:inline-block;width:.8rem;height:.8rem;border-radius:2px;margin-right:.4rem}
.figure,.quiet{color:var(--quiet);font-variant-numeric:tabular-nums}
</style><body>@BODY@</body></html>
"""
