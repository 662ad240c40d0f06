"""Tasks of ten digits with queries of three: learned against fixed hyper-parameters.

A small CNN learned the digits 0 to 4. Constants are learned on tasks of training records and all
is measured on the same 200 tasks of test records, two shots, 20 queries of each of three digits.
The card's grid of fixed balances has one optimum, and learning is as good as that or better
without a grid. The Dirichlet form takes the logits of a network that has begun to learn all digits
for those of a zero-shot model.

The recorded numbers are of 3 seeds and without a negative control, which leaves the claim
undecided.
"""

from __future__ import annotations

from papers.unem.config import GRID, small
from vision.config.specs import build
from vision.papers.claims import SEEDS, Margin, Measured, Recorder, Scale, Side, measure, train

MARGIN = Margin(
    0.05, rule="half of the 10 % over the iterative method with features of images alone"
)


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
        claim="Learned constants are better than the best of five fixed ones.",
        expected="undecided",
        compared=Measured("accuracy, Gaussian", learned["Gaussian"], best("Gaussian")),
        margin=MARGIN,
        scale=Scale(chance=1 / 3),
        control=None,
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
