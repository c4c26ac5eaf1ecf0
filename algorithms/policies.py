"""Every policy network by its standard name, made from an environment and the size of x."""

from gfn_envs.catalogue import Catalogue

policies = Catalogue("policy")

policies.register("mlp", "algorithms.mlp_policy:MLPPolicy")
policies.register("mlp-2", "algorithms.mlp_policy:MLPPolicy", hidden=128, layers=2)
policies.register("gru", "algorithms.gru_policy:GRUPolicy")
policies.register("additive", "algorithms.additive_policy:AdditivePolicy")
policies.register("turtle", "algorithms.turtle_policy:TurtlePolicy")
