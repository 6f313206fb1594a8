"""How good a translation is: metrics, scores, distributions, faithfulness, uncertainty."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["distributions", "faithfulness", "features", "metrics", "scores", "uncertainty"],
    submod_attrs={
        "distributions": ["fid", "kid"],
        "features": ["kid_of"],
        "metrics": ["bone_dice", "bone_hd95_mm", "mae_hu", "ms_ssim", "psnr_db", "ssim"],
        "scores": ["CT_METRICS", "baselines", "evaluate", "summarise", "translated"],
    },
)
