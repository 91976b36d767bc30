"""MaskUNet without training: weight masks that a reward chooses, step by step, for one run.

For quality, not for speed: a run of Stable Diffusion takes a hundred backward passes more.
"""

from sparsediff.prune.reward_guidance.guided_steps import GuidedStep
from sparsediff.prune.reward_guidance.reward_run import RewardRun, run_with_reward
from sparsediff.prune.reward_guidance.reward_settings import RewardSettings

__all__ = ["GuidedStep", "RewardRun", "RewardSettings", "run_with_reward"]
