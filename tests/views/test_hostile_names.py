"""Names of models, titles and headings are text of others: a real browser shows them, and runs nothing of them."""

import pytest
import torch

import hf_attnviz as av
from hf_attnviz.language import set_language
from hf_attnviz.result import Axis, Result
from hf_attnviz.view import View
from hf_attnviz.views import compose, evolution_view, head_view, heatmap, model_view, neuron_view
from tests.models import ids, tiny
from tests.views.builders import self_trace

pytestmark = pytest.mark.browser
HOSTILE = '"\' onload=ran() x="></title></script><script>ran()</script><img src=x onerror=ran()>&lt;b&gt;'


@pytest.fixture(autouse=True)
def english():
    set_language("en")


def result(*axes, name="tokens"):
    return Result(torch.rand([2] * len(axes)), tuple(Axis(axis, ("a", "b")) for axis in axes), "m", source=HOSTILE)


VIEWS = {
    "head": lambda: head_view(self_trace(["a", "b"], model=HOSTILE)),
    "model": lambda: model_view(self_trace(["a", "b"], model=HOSTILE)),
    "neuron": lambda: neuron_view(self_trace(["a", "b"], model=HOSTILE, size=4)),
    "heatmap": lambda: heatmap(result("query", "key"), title=HOSTILE),
    "unit": lambda: heatmap(Result(torch.eye(2), result("query", "key").axes, "m", unit=HOSTILE * 2), title=HOSTILE),
    "evolution": lambda: evolution_view(result("layer", "step"), title=HOSTILE),
    "compose": lambda: compose(HOSTILE, [(HOSTILE, heatmap(result("query", "key"), title=HOSTILE))], HOSTILE),
}


def nothing_ran(page) -> None:
    """``ran`` is no function: had a script of the name been run, the page would have complained, too."""
    assert page.locator("img, [onload], [onerror]").count() == 0
    assert page.evaluate("document.body.dataset.titleEn").endswith(HOSTILE)
    assert page.title().endswith(HOSTILE)
    assert page.inner_text("h1").endswith(HOSTILE)


@pytest.mark.parametrize("name", VIEWS)
def test_a_hostile_name_is_shown_as_text(open_page, name):
    page = open_page(VIEWS[name]())
    nothing_ran(page)
    page.click("#switch-language")
    assert page.title().endswith(HOSTILE)
    page.click("#switch-theme")
    assert page.locator("img, [onload], [onerror]").count() == 0


def test_a_config_names_the_model(open_page):
    model = tiny("bert")
    model.config.name_or_path = HOSTILE
    with av.capture(model) as recording:
        model(ids(1, 3))
    page = open_page(head_view(recording.trace))
    nothing_ran(page)
    assert f"Model: {HOSTILE}" in page.inner_text("footer")


def test_a_frame_reaches_nothing_around_it(open_page):
    """A notebook or the demo puts the page into itself; the page must not read or change what stands around it."""
    inside = """<p id=said></p><script>
        try { parent.document.title = "reached"; said.textContent = "reached"; }
        catch (error) { said.textContent = error.name; }
        document.title = window.origin;
    </script>"""
    view = View(inside, "", title=f"a {HOSTILE}")
    page = open_page(f"<!doctype html><title>around</title>{view.frame()}", wait=False)
    frame = page.frame_locator("iframe")
    frame.locator("#said:not(:empty)").wait_for()
    assert frame.locator("#said").inner_text() == "SecurityError"
    assert page.title() == "around"
    assert page.locator("iframe").get_attribute("title") == f"a {HOSTILE}"
    assert page.frames[1].evaluate("window.origin") == "null"
