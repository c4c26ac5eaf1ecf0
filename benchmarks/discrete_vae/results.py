"""What a discrete-VAE run found."""

from benchmarks.discrete_vae.judgement import PER_IMAGE, is_collapsed
from benchmarks.held_out.results import MethodResult


class DVAEResult(MethodResult):
    """All finished runs of one method; `details` are the quantities of `judgement.judge`."""

    details_file = PER_IMAGE
    of_curves = ("nll", "below_marginal")

    @property
    def collapsed(self) -> int:
        """How many of the runs are no better than independent pixels."""
        below, marginal = (
            self.details[name].mean(1) for name in ("below_marginal", "marginal_nll")
        )
        return sum(map(is_collapsed, below, marginal))
