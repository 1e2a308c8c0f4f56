"""What a reader would stumble over in a page, found in the page itself: contrast, things cut off, words over words.

`faults` runs a script in an open page that looks at every piece of text as the browser laid it out and coloured it.
"""

from __future__ import annotations

from pathlib import Path

from chromium import Browser

_SCRIPT = r"""
(() => {
  const faults = [], root = document.documentElement, wide = root.clientWidth;
  const say = (node, text) => faults.push(`${text}: ${(node.textContent || node.tagName).trim().slice(0, 60)}`);
  const colour = (text) => {
    const parts = text.match(/-?[\d.]+(e-?\d+)?/g).map(Number);
    const unit = text.startsWith("color(") ? 255 : 1;
    return [...parts.slice(0, 3).map((part) => part * unit), parts.length > 3 ? parts[3] : 1];
  };
  const over = (top, under) => [0, 1, 2].map((i) => top[i] * top[3] + under[i] * (1 - top[3])).concat(1);
  const light = (rgb) => {
    const [r, g, b] = rgb.map((part) => part / 255).map((p) => p <= 0.04045 ? p / 12.92 : ((p + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = (one, two) => {
    const [low, high] = [light(one), light(two)].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  };
  const behind = (element) => {
    const layers = [];
    for (let at = element; at; at = at.parentElement) {
      layers.push(colour(getComputedStyle(at).backgroundColor));
      if (layers.at(-1)[3] === 1) break;
    }
    return layers.reverse().reduce((under, top) => over(top, under), [255, 255, 255, 1]);
  };
  const scroller = (element) => {
    for (let at = element; at; at = at.parentElement)
      if (["auto", "scroll"].includes(getComputedStyle(at).overflowX)) return at;
    return null;
  };
  const shown = (element) => element.checkVisibility({ visibilityProperty: true, opacityProperty: true });

  if (root.scrollWidth > wide) faults.push(`the page is ${root.scrollWidth} wide in a window of ${wide}`);
  for (const box of document.querySelectorAll("main *")) {
    const rect = box.getBoundingClientRect();
    if (rect.width && shown(box) && !scroller(box.parentElement) && (rect.right > wide + 0.5 || rect.left < -0.5))
      say(box, `out of the window at ${rect.left.toFixed(0)} to ${rect.right.toFixed(0)} of ${wide}`);
  }
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let looked = 0, node;
  while ((node = texts.nextNode())) {
    const element = node.parentElement, style = getComputedStyle(element);
    if (!node.data.trim() || !shown(element) || element.closest("title, style")) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    const rects = [...range.getClientRects()].filter((rect) => rect.width);
    if (!rects.length) continue;
    looked += 1;
    const picture = element.closest("svg"), ground = behind(picture ? picture.parentElement : element);
    const ink = over(colour(picture ? style.fill : style.color), ground);
    const size = parseFloat(style.fontSize), large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
    const found = contrast(ink, ground);
    if (found < (large ? 3 : 4.5)) say(element, `contrast ${found.toFixed(2)} at ${size} px`);
    const drawn = picture ? size * picture.getBoundingClientRect().width / picture.viewBox.baseVal.width : size;
    if (drawn < 9.9) say(element, `only ${drawn.toFixed(1)} px high`);
    const edge = scroller(element);
    for (let at = picture || element; at && at !== edge && at !== document.body; at = at.parentElement) {
      if (!picture && /^inline|^contents/.test(getComputedStyle(at).display)) continue;
      const box = at.getBoundingClientRect();
      for (const rect of picture ? [element.getBoundingClientRect()] : rects)
        if (rect.left < box.left - 1 || rect.right > box.right + 1 || rect.bottom > box.bottom + 3)
          say(element, `overflows <${at.tagName.toLowerCase()} class="${at.getAttribute("class") || ""}">`);
    }
  }
  for (const picture of document.querySelectorAll("figure svg")) {
    const texts = [...picture.querySelectorAll("text")].filter(shown);
    const words = texts.map((word) => [word, word.getBoundingClientRect()]);
    words.forEach(([one, a], place) => words.slice(place + 1).forEach(([two, b]) => {
      const across = Math.min(a.right, b.right) - Math.max(a.left, b.left);
      const down = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
      if (across > 1 && down > 3) say(one, `lies over "${two.textContent}"`);
    }));
  }
  for (const mark of document.querySelectorAll(".line:not(.raw), .dot, .bar, i.fill")) {
    if (!shown(mark)) continue;
    const style = getComputedStyle(mark), html = !mark.closest("svg");
    const outlined = style.fill === "none" || mark.matches(".second");
    const paint = html ? style.backgroundColor : outlined ? style.stroke : style.fill;
    const card = behind(mark.closest("section, td") || mark.parentElement);
    const found = contrast(colour(paint), card);
    if (found < 3) say(mark, `contrast ${found.toFixed(2)} of a mark ${mark.getAttribute("class")}`);
  }
  for (const [, button] of new Map([...document.querySelectorAll("main .term")].filter(shown)
      .map((button) => [button.getAttribute("popovertarget"), button]))) {
    const note = document.getElementById(button.getAttribute("popovertarget"));
    if (!note) { say(button, "a word without a meaning"); continue; }
    button.scrollIntoView({ block: "center" });
    button.click();
    const rect = note.getBoundingClientRect(), style = getComputedStyle(note);
    if (!note.matches(":popover-open") || !rect.width) say(button, "its meaning does not open");
    else if (rect.left < 0 || rect.right > wide || rect.top < 0 || rect.bottom > innerHeight)
      say(button, `its meaning is out of the window: ${[rect.left, rect.top, rect.right, rect.bottom]}`);
    if (contrast(colour(style.color), behind(note)) < 4.5) say(note, "contrast of a meaning");
    note.hidePopover();
  }
  window.scrollTo(0, 0);
  return { faults: [...new Set(faults)], looked };
})()
"""


def faults(window: Browser, page: Path, *, width: int = 1200, dark: bool = False) -> list[str]:
    """Everything that is wrong with a page at that width and in that theme, and what the console says, line by line."""
    window.open(page, width=width, dark=dark)
    found = window.evaluate(_SCRIPT)
    assert found["looked"] > 50, "hardly any text was found to look at"
    strangers = [address for address in window.requests if address != page.absolute().as_uri()]
    return [*found["faults"], *window.console, *(f"requests {address}" for address in strangers)]
