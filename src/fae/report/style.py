"""The style sheet of a report: light and dark, screen and paper.

Place in the flow: `fae.report.page` puts it into every page. Invariant: it is the only place that names a colour,
and it loads nothing. Series take Okabe and Ito's colours (told apart with any colour vision), lightened on dark ground.
"""

CSS = """\
:root {
  color-scheme: light dark;
  --page: #f6f7f9; --card: #ffffff; --ink: #1d2129; --quiet: #626b78; --rule: #e1e5ea; --grid: #e8ebef;
  --mark: #fff3d1; --mark-ink: #6b4a00; --best: #00664a; --track: #e9ecf0;
  --c0: #0072b2; --c1: #d55e00; --c2: #009e73; --c3: #b8568f; --c4: #c98500; --c5: #3c9fd8; --others: #b7bcc4;
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    --page: #14171c; --card: #1c2026; --ink: #e7eaee; --quiet: #9aa4b1; --rule: #303640; --grid: #292e36;
    --mark: #453812; --mark-ink: #ffdf95; --best: #5fd6ac; --track: #2b3038;
    --c0: #4da6e0; --c1: #f28a45; --c2: #3cc79b; --c3: #e08fbe; --c4: #f0b440; --c5: #8ccbf2; --others: #59616c;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); line-height: 1.5;
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1200px; margin: 0 auto; padding: 32px 24px 64px; }
h1 { font-size: 26px; line-height: 1.25; margin: 0 0 4px; }
h2 { font-size: 20px; margin: 44px 0 12px; padding-top: 14px; border-top: 2px solid var(--rule); }
h3 { font-size: 15px; margin: 0 0 8px; }
p { margin: 0 0 10px; max-width: 78ch; }
.lead, figcaption, .none, .note { color: var(--quiet); }
figcaption { font-size: 13px; margin-top: 8px; max-width: 90ch; }
.none { font-style: italic; }
.card { background: var(--card); border: 1px solid var(--rule); border-radius: 8px; padding: 16px 18px;
  margin: 0 0 18px; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 480px), 1fr)); gap: 18px; }
.pair > .card { margin: 0; min-width: 0; }
.pair + * { margin-top: 18px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; margin: 0 0 18px; }
.tile { background: var(--card); border: 1px solid var(--rule); border-radius: 8px; padding: 10px 14px; }
.tile b { display: block; font-size: 21px; line-height: 1.3; font-weight: 600; font-variant-numeric: tabular-nums; }
.tile b .none { font-size: 14px; font-weight: 400; }
.tile span { color: var(--quiet); font-size: 13px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 14px; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 4px 10px; border-bottom: 1px solid var(--rule); vertical-align: top; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
table.words th, td.text { text-align: left; overflow-wrap: break-word; white-space: normal; }
thead th { color: var(--quiet); font-weight: 600; vertical-align: bottom; }
thead th.run { color: var(--ink); overflow-wrap: break-word; }
td { white-space: nowrap; }
tbody th { font-weight: 400; }
tbody th code { white-space: nowrap; }
tr.group th { font-weight: 600; padding-top: 14px; color: var(--quiet); font-size: 12px; letter-spacing: .05em;
  text-transform: uppercase; }
tr.differs td { background: var(--mark); color: var(--mark-ink); }
td.best { color: var(--best); font-weight: 600; }
code { font: 13px/1.4 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
details { margin-top: 10px; }
summary { cursor: pointer; color: var(--quiet); }
figure { margin: 0; }
svg { display: block; width: 100%; height: auto; }
svg text { font-size: 12px; fill: var(--quiet); font-variant-numeric: tabular-nums; }
svg .name, svg .word { fill: var(--ink); }
svg .word { stroke: var(--card); stroke-width: 4; paint-order: stroke; }
.grid { stroke: var(--grid); fill: none; }
.axis { stroke: var(--quiet); fill: none; }
.marker { stroke: var(--ink); stroke-dasharray: 2 3; fill: none; }
.line { fill: none; stroke: var(--c); stroke-width: 2; stroke-linejoin: round; stroke-linecap: round; }
.dot { fill: var(--c); stroke: var(--card); stroke-width: 1.5; }
.bar, .fill { fill: var(--c); background: var(--c); }
.s0 { --c: var(--c0); } .s1 { --c: var(--c1); } .s2 { --c: var(--c2); } .s3 { --c: var(--c3); } .s4 { --c: var(--c4); }
.s5 { --c: var(--c5); } .others { --c: var(--others); }
.line.others { stroke-width: 1.2; }
.line.d1 { stroke-dasharray: 7 4; } .line.d2 { stroke-dasharray: 2 4; } .line.d3 { stroke-dasharray: 9 3 2 3; }
.legend { display: flex; flex-wrap: wrap; gap: 2px 18px; list-style: none; margin: 8px 0 0; padding: 0;
  font-size: 13px; }
.legend li { display: flex; align-items: center; gap: 7px; overflow-wrap: anywhere; }
.legend i { flex: none; width: 14px; height: 10px; border-radius: 2px; background: var(--c); }
.legend i.d1 { opacity: .7; } .legend i.d2 { opacity: .5; } .legend i.d3 { opacity: .35; }
.bars { display: grid; grid-template-columns: max-content 1fr max-content; gap: 8px 14px; align-items: center;
  font-size: 14px; }
.bars > b { font-weight: 400; overflow-wrap: anywhere; max-width: 34ch; }
.bars > span { text-align: right; font-variant-numeric: tabular-nums; }
.track { display: flex; height: 18px; border-radius: 3px; overflow: hidden; background: var(--track); }
.track i { height: 100%; }
.share { display: inline-block; width: 56px; height: 8px; border-radius: 2px; overflow: hidden;
  background: var(--track); margin-left: 8px; vertical-align: middle; }
.share i { display: block; height: 100%; }
.fill, .legend i, .track, .share { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
footer { color: var(--quiet); font-size: 13px; margin-top: 40px; }
@media print {
  body { background: none; font-size: 11px; }
  main { max-width: none; padding: 0; }
  .card, .tile { border-color: #cccccc; }
  .card, figure, tr, .tiles { break-inside: avoid; }
  .card.long { break-inside: auto; }
  h2, h3 { break-after: avoid; }
  .pair { grid-template-columns: 1fr 1fr; }
  table { font-size: 10px; }
}
"""
