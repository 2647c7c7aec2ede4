"""Where a probe of refusal comes to read it: AUROC by layer, without any word list.

The curve is the AUROC of the logistic probes of every layer (`probes.sweep`) on prompts of folds they were not fitted
to, of what was refused against what was complied with; rows are compared within their fold only. Its onset is where
the AUROC has come 90 % of the way from chance to the best layer's, for an AUROC rises early and then crawls.

Range: [0, 1], 0.5 is chance; NaN where no fold holds both behaviours.

Where it fails: an AUROC near 1 is reached by whatever goes along with refusal, such as topic, so read it beside the
surface baselines of the probe's evidence; and at the ceiling late layers can not be told from early ones.
"""

from analyses.locators.contrast import Contrast
from analyses.locators.curve import Curve
from probes.train import TrainedProbe

SHARE = 0.9


def probe_onset(trained: TrainedProbe, layers: tuple[int, ...], *, seed: int = 0) -> Curve:
    """The AUROC curve of a probe's sweep.

    Args:
        trained: a probe with its sweep.
        layers: layer numbers of the sweep's sites, those of its cache.
        seed: of the bootstrap.

    Returns:
        A curve with null 0.5 and onset at 90 % of the way.
    """
    rows = trained.sample
    contrast = Contrast.of_rows(rows.refused, tuple(rows.groups), names=("refused", "complied"), seed=seed)
    return Curve.of_auroc("probe", layers, trained.swept.scores.T, contrast, folds=rows.folds.of, share=SHARE)
