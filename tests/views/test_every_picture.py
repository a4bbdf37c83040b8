"""Every picture of the table ``av.pictures()``, whoever drew it: hostile text is text in all its formats, every
control is reached by the keyboard and has a name, the page fits a narrow window. A new row is tried without being named
here."""

import io
import json

import pytest
from PIL import Image

import hf_attnviz as av
from hf_attnviz.language import set_language
from hf_attnviz.legible import visible
from hf_attnviz.view import View
from tests.views.hostile import SURROGATES, TOKENS, drawn, letters_only, suited

NAMES = list(av.pictures())
FORMATS = {"svg", "pdf", "png"}

# Everything on the page is pointed at, chosen and pressed once; what is written meanwhile is collected.
TRY_ALL = """async () => {
    const written = [];
    const texts = (records) => records.forEach((record) => {
        written.push(record.target.nodeType === 3 ? record.target.data : "");
        record.addedNodes.forEach((node) => written.push(node.textContent));
        if (record.type === "attributes") written.push(record.target.getAttribute(record.attributeName) || "");
    });
    const watch = new MutationObserver(texts);
    watch.observe(document.body, {subtree: true, childList: true, characterData: true, attributes: true,
        attributeFilter: ["title", "aria-label", "aria-valuetext"]});
    const pointed = (element, x, y) => {
        for (const type of ["pointerover", "mouseover", "pointerenter", "mouseenter", "pointermove", "mousemove"])
            element.dispatchEvent(new (type.startsWith("p") ? PointerEvent : MouseEvent)(
                type, {bubbles: !type.endsWith("enter"), clientX: x, clientY: y}));
    };
    const seen = (selector) => [...document.querySelectorAll(selector)].filter((one) => one.getClientRects().length);
    const rest = () => new Promise((go) => requestAnimationFrame(() => setTimeout(go)));
    const pointAll = () => {
        for (const element of seen("main *").slice(0, 1200)) {
            const box = element.getBoundingClientRect();
            const steps = element.tagName === "CANVAS" ? 13 : 1;
            for (let row = 0; row < steps; row++) for (let column = 0; column < steps; column++)
                pointed(element, box.left + (column + 0.5) / steps * box.width,
                    box.top + (row + 0.5) / steps * box.height);
        }
    };
    pointAll();
    await rest();
    for (const element of seen("main [tabindex='0']").slice(0, 40)) {
        element.focus();
        for (const key of ["ArrowRight", "ArrowDown", "Enter"])
            element.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true, cancelable: true}));
    }
    await rest();
    for (const menu of seen("main select")) {
        for (const option of [...menu.options].slice(0, 6)) {
            menu.value = option.value;
            menu.dispatchEvent(new Event("input", {bubbles: true}));
            menu.dispatchEvent(new Event("change", {bubbles: true}));
            await rest();
        }
    }
    for (const button of seen("main button").slice(0, 40)) { button.click(); }
    await rest();
    for (const button of seen("main button").slice(0, 40)) { button.click(); }
    pointAll();
    await rest();
    texts(watch.takeRecords());
    const named = [...document.querySelectorAll("[title], [aria-label]")];
    written.push(...named.flatMap((one) => [one.title, one.ariaLabel || ""]));
    return [document.body.innerText, ...written].join("\\n");
}"""
STRANGERS = """() => [...document.querySelectorAll("*")].filter((one) =>
    one.matches("img[src=x], iframe, object, embed, base, link, meta[http-equiv=refresh], form")
    || one.getAttributeNames().some((name) => name.startsWith("on"))
    || /^\\s*javascript:/i.test(one.getAttribute("href") || one.getAttribute("src") || ""))
    .map((one) => one.outerHTML.slice(0, 200))"""


@pytest.fixture(autouse=True)
def english():
    set_language("en")


def first(name: str) -> View:
    return drawn(name, next(iter(suited(name).values())))


@pytest.mark.browser
@pytest.mark.parametrize("name", NAMES)
def test_hostile_text_is_text_whatever_is_pointed_at_chosen_or_pressed(open_page, name):
    kind, trace = next(iter(suited(name).items()))
    page = open_page(drawn(name, trace))
    page.on("dialog", lambda dialog: pytest.fail(dialog.message))
    scripts = page.locator("script").count()
    shown = page.evaluate(TRY_ALL)
    page.click("#switch-language")
    page.click("#switch-theme")
    assert page.evaluate(STRANGERS) == []
    assert page.locator("script").count() == scripts
    assert page.locator(".failure").count() == 0
    texts = [visible(text) for text in TOKENS]
    said = [text for text in texts if text in shown or " ".join(text.split()) in " ".join(shown.split())]
    of_heads_alone = name == "map"  # it tells of heads, of no token
    if not of_heads_alone and any("text" in labels.kinds for m in trace.maps for labels in (m.queries, m.keys)):
        assert len(said) >= 3, (kind, said)
    assert "ran()" in shown  # at least in the name of the model


@pytest.mark.parametrize("name", NAMES)
def test_hostile_text_is_letters_in_every_file(name):
    """Of lone surrogates, too, which only labels made by hand can hold."""
    for kind, trace in suited(name).items():
        if kind not in (next(iter(suited(name))), "by hand"):
            continue
        view = drawn(name, trace)
        view.html.encode("utf-8")
        assert not set("".join(SURROGATES)) & set(view.html) - set("lone ")
        assert "\x00" not in view.html and "\x1b" not in view.html and "\u202e" not in view.html
        assert set(view.figures) >= FORMATS, f"{name} has no files for papers: pass figures=figures.files(…) to page"
        letters_only(view.figures["svg"](width=6.75))
        if kind == "by hand":
            continue
        data = view.figures["pdf"]()
        assert not [word for word in (b"/JavaScript", b"/JS", b"/Launch", b"/OpenAction", b"/URI") if word in data]
        assert Image.open(io.BytesIO(view.figures["png"](width=6.75, dpi=50))).width in (337, 338)


# ---- the keyboard

# What can be focused and is seen; and what looks as if it could be pressed, and cannot be focused.
CONTROLS = """() => {
    const can = "a[href], button, select, input, textarea, summary, [tabindex]:not([tabindex='-1'])";
    const all = (selector) => [...document.querySelectorAll(selector)].filter((one) => one.getClientRects().length
        && getComputedStyle(one).visibility === "visible" && !one.disabled);
    const controls = all(can).filter((one) => one.getAttribute("tabindex") !== "-1");
    // of a group through which arrow keys move, one can be reached by Tab
    const alone = all("button[tabindex='-1'], [role][tabindex='-1']").filter(
        (one) => !one.parentElement.closest("table, [role], ul, svg, section, main").querySelector("[tabindex='0']"));
    controls.forEach((one, n) => { one.dataset.control = n; });
    const looks = all("*").filter((one) => getComputedStyle(one).cursor === "pointer"
        && getComputedStyle(one.parentElement).cursor !== "pointer"
        && !one.closest(`${can}, label, [tabindex='-1'], [role=row], [role=grid]`) && !one.querySelector(can));
    return {count: controls.length, mute: [...looks, ...alone].map((one) => one.outerHTML.slice(0, 120)).slice(0, 5)};
}"""
FOCUSED = "() => document.activeElement.dataset.control ?? document.activeElement.tagName"


def unnamed(page) -> list[str]:
    """Focusable things to which Chromium's accessibility tree gives no name."""
    tree = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
    found = []
    for node in tree:
        known = {one["name"]: one["value"].get("value") for one in node.get("properties", [])}
        role = node.get("role", {}).get("value", "")
        if node.get("ignored") or not known.get("focusable") or role in ("RootWebArea", "MenuListOption", "option"):
            continue
        if not node.get("name", {}).get("value", "").strip():
            found.append(json.dumps({"role": role, "id": node.get("backendDOMNodeId")}))
    return found


@pytest.mark.browser
@pytest.mark.parametrize("name", NAMES)
def test_every_control_is_reached_by_tab_and_has_a_name(open_page, name):
    page = open_page(first(name))
    found = page.evaluate(CONTROLS)
    assert found["mute"] == [], "it can be clicked, and no key reaches it"
    reached = set()
    for _ in range(found["count"] + 2):
        page.keyboard.press("Tab")
        reached.add(page.evaluate(FOCUSED))
    missing = sorted(set(map(str, range(found["count"]))) - reached)
    told = page.evaluate(
        "(all) => all.map((n) => document.querySelector(`[data-control='${n}']`)?.outerHTML.slice(0, 90))", missing
    )
    assert missing == [], told
    assert unnamed(page) == []


@pytest.mark.browser
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("width", [760, 420])
def test_a_narrow_window_holds_the_page(open_page, name, width):
    page = open_page(first(name), viewport={"width": width, "height": 900})
    beyond = """() => [...document.querySelectorAll("button, select, input, summary")].filter((one) => {
        const box = one.getBoundingClientRect();
        return box.width && !one.closest("[class*=scroll], .plot, .parts, svg") && box.right > innerWidth + 1;
    }).map((one) => one.outerHTML.slice(0, 120))"""
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(beyond) == []


@pytest.mark.browser
@pytest.mark.parametrize("name", NAMES)
def test_a_frame_in_a_notebook_is_as_high_as_its_page(open_page, name):
    """A page is not cut off, unless it is higher than a screen and scrolls in its frame; nor does emptiness follow."""
    view = first(name)
    page = open_page(view, viewport={"width": 1000, "height": 900})
    content = page.evaluate("document.body.getBoundingClientRect().height")
    assert 0.6 * view.height <= content
    assert min(content, 700) <= 1.15 * view.height
