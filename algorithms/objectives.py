"""Every GFlowNet objective by its standard name."""

from gfn_envs.catalogue import Catalogue

objectives = Catalogue("objective")

objectives.register("tb", "algorithms.trajectory_balance:TrajectoryBalance")
objectives.register("vargrad", "algorithms.vargrad:VarGrad")
objectives.register("db", "algorithms.detailed_balance:DetailedBalance")
objectives.register("subtb", "algorithms.sub_trajectory_balance:SubTrajectoryBalance")
objectives.register("reverse-kl", "algorithms.reverse_kl:ReverseKL")
objectives.register("forward-kl", "algorithms.forward_kl:ForwardKL")
objectives.register("rws", "algorithms.reweighted_wake:ReweightedWake")
objectives.register("vimco", "algorithms.vimco:VIMCO")
objectives.register("fm", "algorithms.flow_matching:FlowMatching")
objectives.register("tlm", "algorithms.trajectory_likelihood:TrajectoryLikelihoodMaximisation")
# These need a model's `log_partial`, the first argument.
objectives.register("fl-db", "algorithms.forward_looking:ForwardLookingDetailedBalance")
objectives.register("fl-subtb", "algorithms.forward_looking:ForwardLookingSubTrajectoryBalance")
# This one its `node_scores`.
objectives.register("span-db", "algorithms.span_balance:SpanBalance")
# And these a prior policy.
objectives.register("rtb", "algorithms.relative_trajectory_balance:RelativeTrajectoryBalance")
objectives.register("rtb-vargrad", "algorithms.relative_trajectory_balance:RelativeVarGrad")
