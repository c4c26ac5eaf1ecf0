"""Generative models of observations with structured latents, and the rewards they induce."""

import gymnasium

from lvms.enumeration import EnumeratedPosterior, exact_posterior
from lvms.gibbs import gibbs_sweep
from lvms.gymnasium_reward import LVMRewardWrapper, VectorLVMRewardWrapper
from lvms.hidden_markov import HiddenMarkovModel
from lvms.hierarchical_mixture import HierarchicalGaussianMixture
from lvms.model import (
    ClosedFormMStep,
    ExactPosterior,
    LatentVariableModel,
    MeanField,
    PartialJoint,
    StartAtData,
    WeightedSamples,
)
from lvms.reward import LVMReward
from lvms.sigmoid_belief import SigmoidBeliefNet

__all__ = [
    "ClosedFormMStep",
    "EnumeratedPosterior",
    "ExactPosterior",
    "HiddenMarkovModel",
    "HierarchicalGaussianMixture",
    "LVMReward",
    "LVMRewardWrapper",
    "LatentVariableModel",
    "MeanField",
    "PartialJoint",
    "SigmoidBeliefNet",
    "StartAtData",
    "VectorLVMRewardWrapper",
    "WeightedSamples",
    "exact_posterior",
    "gibbs_sweep",
]

gymnasium.register(
    id="lvms/HierarchicalMixture-v0",
    entry_point="lvms.gymnasium_reward:make_hierarchical_mixture_env",
    vector_entry_point="lvms.gymnasium_reward:make_hierarchical_mixture_vector_env",
)
