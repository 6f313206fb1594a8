"""How good a translation is: metrics, scores, distributions, faithfulness, uncertainty."""

from ..lazy_names import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    submodules=["distributions", "faithfulness", "features", "lesions", "metrics", "uncertainty"],
    submod_attrs={
        "ct_metrics": ["CT_METRICS", "CtMetric"],
        "distances": ["bone_hd95_mm", "wepl_error_mm"],
        "distributions": ["fid", "kid"],
        "metrics": ["bone_dice", "mae_hu", "ms_ssim", "psnr_db", "ssim"],
        "predictors": ["as_predictor", "baselines"],
        "scores": [
            "compare_methods",
            "evaluate",
            "holm",
            "score_table",
            "summarise",
        ],
        "splits": ["shared_slices", "split_by_patient"],
        "uncertainty": ["UncertaintyMap", "uncertainty_signs"],
        "volume_scores": ["score_volume"],
    },
)
