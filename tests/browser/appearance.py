"""What can be computed of how a page looks: contrast, and what sticks out."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import Locator

# Every visible element that has text of its own, with the ratio of WCAG 2 between its colour and
# what lies behind it; half-transparent layers and opacity are taken into account.
_CONTRASTS = """(root) => {
    const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
    const rgba = (colour) => {
        canvas.clearRect(0, 0, 1, 1);
        canvas.fillStyle = colour;
        canvas.fillRect(0, 0, 1, 1);
        const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
        return [r, g, b, a / 255];
    };
    const over = ([r, g, b, a], below) =>
        [r, g, b].map((each, at) => each * a + below[at] * (1 - a));
    const light = (colour) => {
        const [r, g, b] = colour.map((each) => {
            const share = each / 255;
            return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
        });
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const lineage = (node) => {
        const found = [];
        for (let each = node; each; each = each.parentElement) found.unshift(each);
        return found;
    };
    const seen = [];
    for (const node of [root, ...root.querySelectorAll("*")]) {
        const own = [...node.childNodes].filter((each) => each.nodeType === 3)
            .map((each) => each.textContent.trim()).join(" ").trim()
            || (node.localName === "input" && node.value);
        if (!own || node.closest("svg, style") || node.disabled) continue;
        if (!node.checkVisibility({ opacityProperty: true, visibilityProperty: true })) continue;
        const box = node.getBoundingClientRect();
        if (box.width <= 1 || box.height <= 1) continue; // for screen readers alone
        let behind = [255, 255, 255];
        let opacity = 1;
        for (const each of lineage(node)) {
            const style = getComputedStyle(each);
            opacity *= Number(style.opacity);
            const [r, g, b, a] = rgba(style.backgroundColor);
            behind = over([r, g, b, a * opacity], behind);
        }
        const [r, g, b, a] = rgba(getComputedStyle(node).color);
        const ink = over([r, g, b, a * opacity], behind);
        const [bright, dark] = [light(ink), light(behind)].sort((one, other) => other - one);
        seen.push({ text: own.slice(0, 60), ratio: (bright + 0.05) / (dark + 0.05) });
    }
    return seen;
}"""
# What sticks out of the root to the right and is not within anything that can be scrolled there.
_OVERFLOW = """(root) => {
    const edge = root.getBoundingClientRect().right + 1;
    const outside = [...root.querySelectorAll("*")].filter((node) => {
        if (node.closest("svg") || !node.checkVisibility()) return false;
        for (let each = node.parentElement; each !== root; each = each.parentElement) {
            if (["auto", "scroll"].includes(getComputedStyle(each).overflowX)) return false;
        }
        const box = node.getBoundingClientRect();
        return box.width > 1 && box.right > edge;
    });
    return outside.map((node) => `${node.localName}.${node.className}: ${node.textContent.slice(0, 40)}`);
}"""


def faint(root: Locator, least: float = 4.5) -> list[dict[str, Any]]:
    """The texts below ``root`` that are harder to read than ``least``:1."""
    seen = root.evaluate(_CONTRASTS)
    assert seen, "something is shown"
    return [each for each in seen if each["ratio"] < least]


def sticking_out(root: Locator) -> list[str]:
    """What is cut off at the right edge of ``root``, or pushes its surroundings wider."""
    found: list[str] = root.evaluate(_OVERFLOW)
    return found
