"""The data doctor: what is wrong with a data set, before anything is trained on it."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from medseg_paddle.config import Recipe, as_recipe
from medseg_paddle.core.cores import available_cores
from medseg_paddle.preprocess.shift import Fit, SetFit
from medseg_paddle.steps.check.displacement import judge_displacement
from medseg_paddle.steps.check.facts import Facts, examine
from medseg_paddle.steps.check.findings import Finding, Result, Severity
from medseg_paddle.steps.check.images import centres, judge_images
from medseg_paddle.steps.check.inputs import Gathered, Unit, gather_units
from medseg_paddle.steps.check.labels import class_shares, judge_labels
from medseg_paddle.steps.check.patients import judge_patients, judge_twins
from medseg_paddle.steps.dataset import Progress

__all__ = ["Finding", "Gathered", "Result", "Severity", "check"]

_ORDER = (Severity.ERROR, Severity.WARNING, Severity.NOTE)
_MOST_WORKERS = 8
_MANY, _SHOWN = 5, 3


def check(
    data: Path | str,
    config: Path | str | Recipe | None = None,
    *,
    overrides: Sequence[str] = (),
    page: Path | None = None,
    progress: Progress | None = None,
) -> Result:
    """Look at a data set and say everything that is wrong with it.

    Parameters
    ----------
    data : Path
        A data set that `medseg prepare` made, a folder with PaddleSeg's lists, or a source folder; only read.
    config : Path or Recipe, optional
        For a source folder, whose `prepare` section says how images and labels are found; for lists, whose
        classes the labels are compared with.
    overrides : sequence of str
        ``key=value`` changes of a recipe file.
    page : Path, optional
        HTML page to write, with pictures of the suspects.
    progress : callable, optional
        Called with (done, total, name) after each case.

    Returns
    -------
    Result

    Raises
    ------
    DataError
        There is no data set at all; what is wrong within one is a finding.
    RecipeError
        The recipe cannot be read.
    SetupError
        `page` cannot be written.
    """
    started = time.monotonic()
    data = Path(data)
    recipe = None if config is None else as_recipe(config, overrides)
    gathered = gather_units(data, recipe)
    facts: list[Facts] = []
    together = SetFit()
    for measured, fit in _examined(gathered.units, gathered.mapping):
        facts.append(measured)
        if fit is not None:
            together.add(fit)
        if progress is not None:
            progress(len(facts), len(gathered.units), measured.unit.id)
    set_shift = together.shift()
    findings = [
        *gathered.findings,
        *(trouble for one in facts for trouble in one.troubles),
        *judge_labels(facts, gathered),
        *judge_images(facts, gathered),
        *judge_patients(facts),
        *judge_twins(facts),
        *judge_displacement(facts, set_shift, together.cases),
    ]
    result = Result(
        data=str(data),
        kind=gathered.kind,
        splits=dict(Counter(unit.split for unit in gathered.units)),
        findings=tuple(
            _below(one, gathered.root)
            for one in sorted(_in_few_words(findings), key=lambda one: _ORDER.index(one.severity))
        ),
        classes=class_shares(facts, gathered),
        centers=centres(facts),
        set_shift=set_shift,
        shifts={one.unit.id: one.shift for one in facts if one.shift is not None},
        seconds=time.monotonic() - started,
    )
    if page is not None:
        from medseg_paddle.steps.check.page import write_page

        write_page(page, result, gathered, facts)
    return result


def _examined(units: Iterable[Unit], mapping: Mapping[int, int] | None) -> Iterator[tuple[Facts, Fit | None]]:
    """Examine cases side by side, in their order; few at a time, so that memory does not grow with the set.

    Threads do: decoding and the correlations happen outside Python's lock.
    """
    workers = min(available_cores(), _MOST_WORKERS)
    waiting: deque[Future[tuple[Facts, Fit | None]]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for unit in units:
                waiting.append(pool.submit(examine, unit, mapping))
                if len(waiting) > 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for one in waiting:
                one.cancel()


def _in_few_words(findings: Sequence[Finding]) -> Iterator[Finding]:
    """Put findings of one kind with one remedy together where there are many: a thousand missing files are one."""
    kinds: dict[tuple[str, Severity, str], list[Finding]] = {}
    for one in findings:
        kinds.setdefault((one.code, one.severity, one.remedy), []).append(one)
    for (code, severity, remedy), members in kinds.items():
        if len(members) < _MANY:
            yield from members
            continue
        said = [one.message for one in members]
        yield Finding(
            code,
            severity,
            f"{len(members)} times: {'; '.join(said[:_SHOWN])}; ...",
            remedy,
            tuple(dict.fromkeys(name for one in members for name in one.cases)),
            {"messages": said},
        )


def _below(finding: Finding, root: Path) -> Finding:
    """Say paths as they are below the data set: a page that is passed on need not say where it lies."""

    def short(text: str) -> str:
        for home in dict.fromkeys((str(root.resolve()), str(root))):
            if home not in (".", ""):
                text = text.replace(f"{home}/", "").replace(home, root.resolve().name)
        return text

    figures = dict(finding.figures)
    if "messages" in figures:
        figures["messages"] = [short(text) for text in figures["messages"]]
    return Finding(
        finding.code, finding.severity, short(finding.message), short(finding.remedy), finding.cases, figures
    )
