"""Tasks of ten digits with queries of three: learned against fixed hyper-parameters.

A small CNN learned the digits 0 to 4. Constants are learned on tasks of training records and all
is measured on the same 200 tasks of test records, two shots, 20 queries of each of three digits.
The card's grid of fixed balances has one optimum, and learning is as good as that or better
without a grid. The Dirichlet form takes the logits of a network that has begun to learn all digits
for those of a zero-shot model.
"""

from __future__ import annotations

from papers.unem.config import GRID, small
from vision.config.specs import build
from vision.papers.claims import SEEDS, Measured, Recorder, Side, measure, train


def test_learned_constants_need_no_grid(record: Recorder):
    rows: dict[str, list[dict[str, float]]] = {"Gaussian": [], "Dirichlet": []}
    for form, results in rows.items():
        config = small(dirichlet=form == "Dirichlet")
        evaluator = build(config.evaluators)["tasks"]
        results += [measure(train(config, seed), evaluator) for seed in SEEDS]

    def side(form: str, name: str) -> Side:
        title = name.replace("fixed_", "fixed balance ")
        return Side(title, tuple(row[name] for row in rows[form]))

    def best(form: str) -> Side:
        return max((side(form, f"fixed_{g:g}") for g in GRID), key=lambda candidate: candidate.mean)

    learned = {form: side(form, "learned") for form in rows}
    record(
        claim="Learned constants are at most half a point worse than the best of five fixed ones, "
        "at least 5 points better than the worst, and better than answering without queries: in "
        "the Gaussian form.",
        expected=True,
        holds=learned["Gaussian"].mean >= best("Gaussian").mean - 0.005
        and learned["Gaussian"].mean
        >= min(side("Gaussian", f"fixed_{g:g}").mean for g in GRID) + 0.05
        and learned["Gaussian"].mean > side("Gaussian", "inductive").mean,
        measured=[
            Measured(f"accuracy, {form}", learned[form], baseline)
            for form in rows
            for baseline in (
                best(form),
                *(side(form, f"fixed_{g:g}") for g in GRID),
                side(form, "inductive"),
            )
        ],
    )
