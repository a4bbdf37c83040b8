"""When a step of decoding is kept together with others, and when what the steps have left behind is reduced."""

from hf_attnviz.capturing import scope, steering
from hf_attnviz.capturing.decoding import STRIDE, Lanes
from hf_attnviz.capturing.runs import Pass
from hf_attnviz.errors import CaptureError
from hf_attnviz.language import Text


def begin(session: scope.Session, one: Pass) -> None:
    """Find out whether the pass that begins is one more step like those before it."""
    recording = session.recording
    alone = session.run.rests and recording.strides and len(scope.sessions()) == 1
    if not alone or steering.active():
        reduce(session)
        return
    if session.lanes is None:
        session.lanes = Lanes(session.run.each_step, dict(recording.model.named_modules()))
    session.striding = session.lanes.goes_on(one, session.cache)
    if not session.striding:
        reduce(session)
        session.striding = session.lanes.goes_on(one, session.cache)
    if session.striding:
        session.lanes.steps.append(one)


def end(session: scope.Session, one: Pass) -> None:
    """Reduce a full stride. A pass at rest that is none: whoever attended in the first must have done so again."""
    if session.striding and session.lanes is not None:
        if len(session.lanes.steps) >= STRIDE:
            reduce(session)
        return
    if not session.run.rests:
        return
    now = {call.module for call in one.calls}
    for call in session.run.each_step:
        if call.module not in now:
            problem = CaptureError(
                Text(
                    f"it attended in the first pass and not in step {one.step}, where only transformers' interface was "
                    "watched; run the steps one by one, each in a recording of its own",
                    f"它在首次前向中做了注意力，在第 {one.step} 步却没有，而这些步里只观察 transformers 的接口；"
                    "请逐步运行，每步各用一个录制",
                )
            )
            session.recording.blame(session, session.recording.model.get_submodule(call.module), problem)


def reduce(session: scope.Session) -> None:
    """Keep what steps of decoding have left behind."""
    if session.lanes is None or not session.lanes.steps:
        return
    last = session.lanes.steps[-1]
    if session.run.refused:
        session.lanes = None
        return
    try:
        for call in session.lanes.reduced(session.run, session.recording.reducers):
            session.recording.budget.keep(session, last, call)
    except Exception as problem:
        session.recording.blame(session, None, problem)
