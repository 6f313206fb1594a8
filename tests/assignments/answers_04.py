"""Assignment 4: what a student would really write, wrong and right."""

NAME = "04_metrics_pitfalls_failures"

BY_PATIENT = """
def patient_interval(values, patients, seed, resamples=2000):
    values, patients = np.asarray(values, float), np.asarray(patients)
    means = np.array([values[patients == name].mean() for name in np.unique(patients)])
    rng = np.random.default_rng(seed)
"""

WRONG = {
    "masked_mae": {
        "air counts": """
def masked_mae(pred, true, mask):
    if not mask.any():
        raise ValueError
    return np.abs(pred - true).mean()""",
        "divided by all pixels": """
def masked_mae(pred, true, mask):
    if not mask.any():
        raise ValueError
    return np.where(mask, np.abs(pred - true), 0).mean()""",
        "NaN times zero": """
def masked_mae(pred, true, mask):
    if not mask.any():
        raise ValueError
    return (np.abs(pred - true) * mask).sum() / mask.sum()""",
        "signs cancel": """
def masked_mae(pred, true, mask):
    if not mask.any():
        raise ValueError
    return abs((pred - true)[mask].mean())""",
        "an empty mask is not refused": """
def masked_mae(pred, true, mask):
    return np.abs(pred - true)[mask].mean()""",
        "slice by slice": """
def masked_mae(pred, true, mask):
    if not mask.any():
        raise ValueError
    if pred.ndim == 2:
        return np.abs(pred - true)[mask].mean()
    return np.mean([np.abs(p - t)[m].mean() for p, t, m in zip(pred, true, mask)])""",
    },
    "psnr_db": {
        "not clipped": """
def psnr_db(pred, true, mask, low, high):
    mse = ((pred - true)[mask] ** 2).mean()
    return 10 * np.log10((high - low) ** 2 / mse) if mse > 0 else np.inf""",
        "the largest value for the range": """
def psnr_db(pred, true, mask, low, high):
    mse = ((pred.clip(low, high) - true.clip(low, high))[mask] ** 2).mean()
    return 10 * np.log10(high**2 / mse) if mse > 0 else np.inf""",
        "the range is not squared": """
def psnr_db(pred, true, mask, low, high):
    mse = ((pred.clip(low, high) - true.clip(low, high))[mask] ** 2).mean()
    return 10 * np.log10((high - low) / mse) if mse > 0 else np.inf""",
        "20 instead of 10": """
def psnr_db(pred, true, mask, low, high):
    mse = ((pred.clip(low, high) - true.clip(low, high))[mask] ** 2).mean()
    return 20 * np.log10((high - low) ** 2 / mse) if mse > 0 else np.inf""",
        "natural logarithm": """
def psnr_db(pred, true, mask, low, high):
    mse = ((pred.clip(low, high) - true.clip(low, high))[mask] ** 2).mean()
    return 10 * np.log((high - low) ** 2 / mse) if mse > 0 else np.inf""",
        "air counts": """
def psnr_db(pred, true, mask, low, high):
    mse = ((pred.clip(low, high) - true.clip(low, high)) ** 2).mean()
    return 10 * np.log10((high - low) ** 2 / mse) if mse > 0 else np.inf""",
        "the range of the picture": """
def psnr_db(pred, true, mask, low, high):
    mse = ((pred.clip(low, high) - true.clip(low, high))[mask] ** 2).mean()
    return 10 * np.log10((true.max() - true.min() + 1e-9) ** 2 / mse) if mse > 0 else np.inf""",
    },
    "bone_dice": {
        "intersection over union": """
def bone_dice(pred, true, mask):
    p, t = (pred > 250) & mask, (true > 250) & mask
    return (p & t).sum() / (p | t).sum() if (p | t).any() else np.nan""",
        "bone outside of the mask counts": """
def bone_dice(pred, true, mask):
    p, t = pred > 250, true > 250
    return 2 * (p & t).sum() / (p.sum() + t.sum()) if p.any() or t.any() else np.nan""",
        "0 when there is no bone": """
def bone_dice(pred, true, mask):
    p, t = (pred > 250) & mask, (true > 250) & mask
    return 2 * (p & t).sum() / max(p.sum() + t.sum(), 1)""",
        "1 when there is no bone": """
def bone_dice(pred, true, mask):
    p, t = (pred > 250) & mask, (true > 250) & mask
    return 2 * (p & t).sum() / (p.sum() + t.sum()) if p.any() or t.any() else 1.0""",
        "share of the true bone": """
def bone_dice(pred, true, mask):
    p, t = (pred > 250) & mask, (true > 250) & mask
    return (p & t).sum() / t.sum() if t.any() else np.nan""",
        "250 HU counts as bone": """
def bone_dice(pred, true, mask):
    p, t = (pred >= 250) & mask, (true >= 250) & mask
    return 2 * (p & t).sum() / (p.sum() + t.sum()) if p.any() or t.any() else np.nan""",
    },
    "tissue_mae": {
        "classes by the prediction": """
def tissue_mae(pred, true, mask):
    classes = {"air": pred < -200, "bone": pred > 250, "soft": (pred >= -200) & (pred <= 250)}
    errors = {name: np.abs(pred - true)[c & mask] for name, c in classes.items()}
    return {name: e.mean() if len(e) else math.nan for name, e in errors.items()}""",
        "classes where both agree": """
def tissue_mae(pred, true, mask):
    def classes(x):
        return {"air": x < -200, "bone": x > 250, "soft": (x >= -200) & (x <= 250)}
    result = {}
    for name in ("air", "soft", "bone"):
        e = np.abs(pred - true)[classes(pred)[name] & classes(true)[name] & mask]
        result[name] = e.mean() if len(e) else math.nan
    return result""",
        "air outside of the head counts": """
def tissue_mae(pred, true, mask):
    classes = {"air": true < -200, "bone": true > 250, "soft": (true >= -200) & (true <= 250)}
    errors = {name: np.abs(pred - true)[c] for name, c in classes.items()}
    return {name: e.mean() if len(e) else math.nan for name, e in errors.items()}""",
        "0 for what does not occur": """
def tissue_mae(pred, true, mask):
    classes = {"air": true < -200, "bone": true > 250, "soft": (true >= -200) & (true <= 250)}
    errors = {name: np.abs(pred - true)[c & mask] for name, c in classes.items()}
    return {name: e.sum() / max(len(e), 1) for name, e in errors.items()}""",
        "divided by the whole mask": """
def tissue_mae(pred, true, mask):
    classes = {"air": true < -200, "bone": true > 250, "soft": (true >= -200) & (true <= 250)}
    error = np.abs(pred - true)
    return {name: error[c & mask].sum() / mask.sum() for name, c in classes.items()}""",
        "the edges belong to nobody": """
def tissue_mae(pred, true, mask):
    classes = {"air": true < -200, "bone": true > 250, "soft": (true > -200) & (true < 250)}
    errors = {name: np.abs(pred - true)[c & mask] for name, c in classes.items()}
    return {name: e.mean() if len(e) else math.nan for name, e in errors.items()}""",
    },
    "patient_interval": {
        "slices are drawn": """
def patient_interval(values, patients, seed, resamples=2000):
    values = np.asarray(values, float)
    drawn = np.random.default_rng(seed).choice(values, (resamples, len(values))).mean(1)
    return values.mean(), *np.percentile(drawn, [2.5, 97.5])""",
        "patients for the mean, slices for the interval": BY_PATIENT
        + """
    drawn = rng.choice(values, (resamples, len(values))).mean(1)
    return means.mean(), *np.percentile(drawn, [2.5, 97.5])""",
        "the spread of the patients": BY_PATIENT
        + """
    return means.mean(), *np.percentile(means, [2.5, 97.5])""",
        "mean and 1.96 standard errors": BY_PATIENT
        + """
    half = 1.96 * means.std(ddof=1) / np.sqrt(len(means))
    return means.mean(), means.mean() - half, means.mean() + half""",
        "drawn without replacement": BY_PATIENT
        + """
    drawn = np.array([rng.permutation(means).mean() for _ in range(resamples)])
    return means.mean(), *np.percentile(drawn, [2.5, 97.5])""",
        "no seed": BY_PATIENT.replace("default_rng(seed)", "default_rng()")
        + """
    drawn = rng.choice(means, (resamples, len(means))).mean(1)
    return means.mean(), *np.percentile(drawn, [2.5, 97.5])""",
        "a 90 % interval": BY_PATIENT
        + """
    drawn = rng.choice(means, (resamples, len(means))).mean(1)
    return means.mean(), *np.percentile(drawn, [5, 95])""",
    },
    "contrast_recovery": {
        "the reference is forgotten": """
def contrast_recovery(pred, true, lesion, reference):
    if true[lesion].mean() == true[reference].mean():
        raise ValueError
    return pred[lesion].mean() / true[lesion].mean()""",
        "without a sign": """
def contrast_recovery(pred, true, lesion, reference):
    contrast = true[lesion].mean() - true[reference].mean()
    if contrast == 0:
        raise ValueError
    return abs(pred[lesion].mean() - pred[reference].mean()) / abs(contrast)""",
        "the reference of the truth": """
def contrast_recovery(pred, true, lesion, reference):
    contrast = true[lesion].mean() - true[reference].mean()
    if contrast == 0:
        raise ValueError
    return (pred[lesion].mean() - true[reference].mean()) / contrast""",
        "upside down": """
def contrast_recovery(pred, true, lesion, reference):
    contrast = true[lesion].mean() - true[reference].mean()
    if contrast == 0:
        raise ValueError
    return contrast / (pred[lesion].mean() - pred[reference].mean())""",
        "a difference, not a share": """
def contrast_recovery(pred, true, lesion, reference):
    contrast = true[lesion].mean() - true[reference].mean()
    if contrast == 0:
        raise ValueError
    return 1 - (contrast - (pred[lesion].mean() - pred[reference].mean())) / 100""",
        "cut to 0 and 1": """
def contrast_recovery(pred, true, lesion, reference):
    contrast = true[lesion].mean() - true[reference].mean()
    if contrast == 0:
        raise ValueError
    return min(max((pred[lesion].mean() - pred[reference].mean()) / contrast, 0), 1)""",
    },
}

RIGHT = {
    "masked_mae": [
        """
def masked_mae(pred, true, mask):
    if mask.sum() == 0:
        raise ValueError("nothing to average over")
    return np.mean(np.abs(np.subtract(pred, true)), where=mask)""",
        """
def masked_mae(pred, true, mask):
    inside = mask.nonzero()
    if len(inside[0]) == 0:
        raise ValueError("empty")
    return sum(abs(p - t) for p, t in zip(pred[inside], true[inside])) / len(inside[0])""",
    ],
    "psnr_db": [
        """
def psnr_db(pred, true, mask, low, high):
    error = np.clip(pred, low, high)[mask] - np.clip(true, low, high)[mask]
    with np.errstate(divide="ignore"):
        return 20 * np.log10((high - low) / np.sqrt(np.mean(error**2)))""",
        """
from skimage.metrics import peak_signal_noise_ratio

def psnr_db(pred, true, mask, low, high):
    one, other = np.clip(true[mask], low, high), np.clip(pred[mask], low, high)
    return peak_signal_noise_ratio(one, other, data_range=high - low)""",
    ],
    "bone_dice": [
        """
def bone_dice(pred, true, mask):
    p, t = pred[mask] > 250, true[mask] > 250
    if not (p.any() or t.any()):
        return float("nan")
    hits, misses = np.sum(p * t), np.sum(p != t)
    return 2 * hits / (2 * hits + misses)""",
        """
def bone_dice(pred, true, mask):
    bones = [set(np.flatnonzero((image > 250) & mask)) for image in (pred, true)]
    total = sum(map(len, bones))
    return 2 * len(bones[0] & bones[1]) / total if total else np.nan""",
    ],
    "tissue_mae": [
        """
def tissue_mae(pred, true, mask):
    label = np.digitize(true, [-200, np.nextafter(250, 251)])
    result = {}
    for number, name in enumerate(("air", "soft", "bone")):
        chosen = mask & (label == number)
        result[name] = np.abs(pred[chosen] - true[chosen]).mean() if chosen.any() else np.nan
    return result""",
        """
def tissue_mae(pred, true, mask):
    sums = {name: [0.0, 0] for name in ("air", "soft", "bone")}
    for p, t in zip(pred[mask], true[mask]):
        name = "air" if t < -200 else "bone" if t > 250 else "soft"
        sums[name][0] += abs(p - t)
        sums[name][1] += 1
    return {name: total / n if n else float("nan") for name, (total, n) in sums.items()}""",
    ],
    "patient_interval": [
        BY_PATIENT
        + """
    drawn = [rng.choice(means, len(means)).mean() for _ in range(resamples)]
    return means.mean(), np.quantile(drawn, 0.025), np.quantile(drawn, 0.975)""",
        """
import random


def patient_interval(values, patients, seed, resamples=2000):
    by_patient = {}
    for value, name in zip(values, patients):
        by_patient.setdefault(name, []).append(value)
    means = [sum(some) / len(some) for some in by_patient.values()]
    draw = random.Random(seed)
    drawn = sorted(
        sum(draw.choices(means, k=len(means))) / len(means) for _ in range(resamples)
    )
    return (
        sum(means) / len(means),
        drawn[round(0.025 * (resamples - 1))],
        drawn[round(0.975 * (resamples - 1))],
    )""",
    ],
    "contrast_recovery": [
        """
def contrast_recovery(pred, true, lesion, reference):
    def contrast(image):
        return np.average(image, weights=lesion) - np.average(image, weights=reference)

    if contrast(true) == 0:
        raise ValueError("no contrast")
    return contrast(pred) / contrast(true)""",
        """
def contrast_recovery(pred, true, lesion, reference):
    before = np.mean(true[lesion]) - np.mean(true[reference])
    if not abs(before) > 0:
        raise ValueError("no contrast in the truth")
    after = np.mean(pred[lesion]) - np.mean(pred[reference])
    return float(np.divide(after, before))""",
    ],
}
