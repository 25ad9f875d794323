"""Messages as Slack shows them, as one HTML page to look at: not exact, but every block, field and button."""

from __future__ import annotations

import html
import re
from typing import Any

_STYLE = """
body{font:15px/1.46 Lato,Arial,sans-serif;color:#1d1c1d;margin:24px;max-width:720px}
h2{font-size:13px;color:#616061;margin:28px 0 6px;font-weight:400}
.m{border-left:4px solid #ddd;padding:4px 14px}
.h{font-weight:900;font-size:18px;margin:6px 0}
.s{margin:8px 0;white-space:pre-wrap}
.f{display:grid;grid-template-columns:1fr 1fr;gap:8px} .c{color:#616061;font-size:13px;margin:6px 0}
.b{display:inline-block;border:1px solid #bbb;border-radius:4px;padding:4px 12px;
margin:4px 6px 4px 0;font-weight:700}
.primary{background:#007a5a;color:#fff} .danger{background:#e01e5a;color:#fff}
q{display:block;border-left:4px solid #ddd;padding-left:10px;quotes:none}
"""
_MARKS = {
    ":white_check_mark:": "✅",
    ":hourglass_flowing_sand:": "⏳",
    ":octagonal_sign:": "🛑",
    ":warning:": "⚠️",
    ":x:": "❌",
}


def page(messages: dict[str, dict[str, Any]]) -> str:
    """A page with each message under its name."""
    parts = [
        f"<h2>{html.escape(name)}</h2><div class=m>{''.join(map(_block, one['blocks']))}</div>"
        for name, one in messages.items()
    ]
    head = f"<!doctype html><meta charset=utf-8><title>Slack</title><style>{_STYLE}</style>"
    return head + "".join(parts)


def _block(block: dict[str, Any]) -> str:
    match block["type"]:
        case "header":
            return f"<div class=h>{html.escape(block['text']['text'])}</div>"
        case "section" if "fields" in block:
            fields = "".join(f"<div class=s>{mrkdwn(one)}</div>" for one in block["fields"])
            return f"<div class=f>{fields}</div>"
        case "section":
            return f"<div class=s>{mrkdwn(block['text'])}</div>"
        case "context":
            return f"<div class=c>{' '.join(map(mrkdwn, block['elements']))}</div>"
        case "input":
            label, element = html.escape(block["label"]["text"]), block["element"]["type"]
            return f"<div class=s><b>{label}</b><br>[{element}]</div>"
        case _:
            return "".join(
                f"<span class='b {one.get('style', '')}'>{html.escape(one['text']['text'])}</span>"
                for one in block["elements"]
            )


def mrkdwn(text: dict[str, Any]) -> str:
    """What Slack makes of mrkdwn: links, dates, bold, quotations; the rest is text."""
    found = text["text"]
    found = re.sub(r"<!date\^\d+\^[^|>]*\|([^>]*)>", r"\1", found)
    found = re.sub(r"<(https?://[^|>]+)\|([^>]*)>", r'<a href="\1">\2</a>', found)
    found = re.sub(r"\*([^*\n]+)\*", r"<b>\1</b>", found)
    found = re.sub(r"^&gt; ?(.*)$", r"<q>\1</q>", found, flags=re.MULTILINE)
    for mark, sign in _MARKS.items():
        found = found.replace(mark, sign)
    return found
