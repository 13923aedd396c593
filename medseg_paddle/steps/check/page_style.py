"""How the page of findings looks, on a screen and on a phone, by day and by night."""

from __future__ import annotations

STYLE = """
:root{--paper:#f6f7f9;--card:#fff;--ink:#1b1f24;--soft:#5b6470;--line:#dfe3e8;--error:#b3261e;--warning:#9a5b00;
--note:#0b6bb0;--good:#0a6e4f;--stored:#e69f00;--fits:#56b4e9}
@media(prefers-color-scheme:dark){:root{--paper:#14171b;--card:#1d2126;--ink:#e8eaed;--soft:#9aa4b0;--line:#31373f;
--error:#ff8a80;--warning:#ffb74d;--note:#7cc4ff;--good:#5fd3ac}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,
"Helvetica Neue",Arial,sans-serif}
main{max-width:1120px;margin:0 auto;padding:32px 24px 48px}
h1{margin:0;font-size:2rem;line-height:1.2;overflow-wrap:anywhere}
h2{margin:40px 0 12px;font-size:1.2rem}
h3{margin:0;font-size:1rem;font-weight:600}
p{margin:6px 0;overflow-wrap:anywhere}
code{font:.92em ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
.kind{margin:0 0 4px;color:var(--soft);font-size:.9rem}
.verdict{margin:12px 0 20px;font-size:1.15rem;font-weight:600}
.verdict.error,h2.error{color:var(--error)}
.verdict.warning,h2.warning{color:var(--warning)}
.verdict.good{color:var(--good)}
h2.note{color:var(--note)}
.tiles{display:flex;flex-wrap:wrap;gap:8px;margin:0}
.tiles div{min-width:92px;padding:10px 14px;background:var(--card);border:1px solid var(--line);border-radius:8px}
.tiles dt{color:var(--soft);font-size:.85rem}
.tiles dd{margin:0;font-size:1.4rem;font-weight:600;font-variant-numeric:tabular-nums}
article{margin:0 0 14px;padding:14px 18px;background:var(--card);border:1px solid var(--line);border-left:4px solid
var(--note);border-radius:8px}
article.error{border-left-color:var(--error)}
article.warning{border-left-color:var(--warning)}
.remedy{color:var(--soft)}
.remedy::before{content:"→ "}
.pictures{display:grid;grid-template-columns:repeat(auto-fill,minmax(230px,1fr));gap:14px;margin:14px 0 6px}
figure{margin:0;min-width:0}
figure label{display:block;cursor:zoom-in}
figure input{position:absolute;opacity:0;pointer-events:none}
figure img{display:block;width:100%;height:auto;background:#000;border-radius:6px}
figure input:focus-visible+img{outline:3px solid var(--note);outline-offset:2px}
figure:has(input:checked){grid-column:1/-1}
figure:has(input:checked) label{cursor:zoom-out}
figure:has(input:checked) img{max-width:960px}
figcaption{margin-top:5px;font-size:.86rem;line-height:1.35;overflow-wrap:anywhere}
figcaption span{padding:0 6px;border:1px solid var(--line);border-radius:9px;color:var(--soft);font-size:.8em}
details{margin-top:8px;color:var(--soft);font-size:.9rem}
summary{cursor:pointer}
.shift{display:flex;flex-wrap:wrap;gap:24px;align-items:center;padding:16px 18px;background:var(--card);border:1px solid
var(--line);border-radius:8px}
.shift>div{flex:1 1 260px}
svg{flex:0 1 320px;width:100%;max-width:320px;height:auto}
svg line,svg .ring{stroke:var(--line);fill:none}
svg text{fill:var(--soft);font-size:11px}
svg .dot{fill:var(--note);fill-opacity:.55}
svg .off{fill:var(--error)}
svg .all{stroke:var(--ink);stroke-width:2;fill:none}
.legend{margin:14px 0 0;color:var(--soft);font-size:.9rem}
.legend span{margin-left:12px}
.legend i{display:inline-block;width:22px;height:4px;margin:0 4px 3px 10px;border-radius:2px;vertical-align:middle}
.legend i:first-child{margin-left:0}
.stored{background:var(--stored)}
.fits{background:var(--fits)}
.wide{overflow-x:auto;background:var(--card);border:1px solid var(--line);border-radius:8px}
table{width:100%;border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{padding:8px 14px;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap}
th{color:var(--soft);font-size:.85rem;font-weight:500}
tr:last-child td{border-bottom:0}
th:nth-child(1),td:nth-child(1),th:nth-child(2),td:nth-child(2){text-align:left}
footer{margin-top:40px;color:var(--soft);font-size:.86rem}
@media(max-width:560px){main{padding:20px 14px 36px}h1{font-size:1.5rem}.tiles div{min-width:78px;padding:8px 10px}
article{padding:12px 14px}.pictures{grid-template-columns:repeat(auto-fill,minmax(150px,1fr));gap:10px}}
@media print{body{background:#fff}article,figure{break-inside:avoid}}
"""
