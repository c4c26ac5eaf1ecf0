"""Generative models of observations with structured latents, and the rewards they induce."""

import gymnasium

from lvms.code_prior import CodePrior, UniformPrior, code_priors
from lvms.discrete_vae import DiscreteVAE
from lvms.enumeration import EnumeratedPosterior, exact_posterior
from lvms.gibbs import gibbs_sweep
from lvms.gymnasium_reward import LVMRewardWrapper, VectorLVMRewardWrapper
from lvms.hidden_markov import HiddenMarkovModel
from lvms.hierarchical_mixture import HierarchicalGaussianMixture
from lvms.model import (
    ClosedFormMStep,
    ContrastivePrior,
    ExactPosterior,
    LatentVariableModel,
    MeanField,
    PartialJoint,
    StartAtData,
    WeightedSamples,
)
from lvms.path_drawing import PathDrawing
from lvms.pixel_cnn import PixelCNN
from lvms.reward import LVMReward
from lvms.sigmoid_belief import SigmoidBeliefNet
from lvms.sprite_scene import SpriteScene
from lvms.transformer_prior import TransformerPrior

__all__ = [
    "ClosedFormMStep",
    "CodePrior",
    "ContrastivePrior",
    "DiscreteVAE",
    "EnumeratedPosterior",
    "ExactPosterior",
    "HiddenMarkovModel",
    "HierarchicalGaussianMixture",
    "LVMReward",
    "LVMRewardWrapper",
    "LatentVariableModel",
    "MeanField",
    "PartialJoint",
    "PathDrawing",
    "PixelCNN",
    "SigmoidBeliefNet",
    "SpriteScene",
    "StartAtData",
    "TransformerPrior",
    "UniformPrior",
    "VectorLVMRewardWrapper",
    "WeightedSamples",
    "code_priors",
    "exact_posterior",
    "gibbs_sweep",
]

gymnasium.register(
    id="lvms/HierarchicalMixture-v0",
    entry_point="lvms.gymnasium_reward:make_hierarchical_mixture_env",
    vector_entry_point="lvms.gymnasium_reward:make_hierarchical_mixture_vector_env",
)
