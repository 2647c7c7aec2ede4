from interp.lens.logit_lens import LensReading, logit_lens, token_log_probs
from interp.lens.readout import Readout

__all__ = ["LensReading", "Readout", "logit_lens", "token_log_probs"]
