"""How good a translation is: metrics, scores, distributions, faithfulness, uncertainty."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["distributions", "faithfulness", "features", "lesions", "metrics", "uncertainty"],
    submod_attrs={
        "ct_metrics": ["CT_METRICS", "CtMetric"],
        "distances": ["bone_hd95_mm", "wepl_error_mm"],
        "distributions": ["fid", "kid"],
        "features": ["kid_of"],
        "metrics": ["bone_dice", "mae_hu", "ms_ssim", "psnr_db", "ssim"],
        "predictors": ["baselines", "translated"],
        "scores": [
            "compare_methods",
            "evaluate",
            "holm",
            "summarise",
            "table",
        ],
        "splits": ["shared_slices", "split_by_patient"],
        "uncertainty": ["UncertaintyMap", "uncertainty_signs"],
        "volume_scores": ["score_volume"],
    },
)
