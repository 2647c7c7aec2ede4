from interp.lens.logit_lens import LensReading, logit_lens, token_log_probs
from interp.lens.readout import Readout
from interp.lens.tuned_lens import TunedLens
from interp.lens.vocabulary_cosine import vocabulary_cosine

__all__ = ["LensReading", "Readout", "TunedLens", "logit_lens", "token_log_probs", "vocabulary_cosine"]
