r"""Which patient a scan shows: one rule, so that nobody is on both sides of a split.

1. `--person REGEX`, if it is given: what it matches in the path (its first group, if it has one).
2. DICOM: the PatientID. If it is missing or anonymous, the name with the birth date. If all series
   have the same, it says nothing, and the folders decide, unless name and birth date show that it
   really is one patient.
3. Else the path below the source, without endings of a type (`.nii.gz`):

   * a part that names a patient in a known way wins: `sub-01`, `IXI002`, `OAS1_0001`,
     `002_S_0413`, `TCGA-02-0001`, `BraTS-GLI-00005`, then `patient7`, `case_12` and the like;
   * else the first part that says anything. Folders such as `Task1`, `brain`, `train`, `images`
     say nothing; a site (`siteA`, `center2`, `hospital_x`) is kept beside the patient.

   From each part go modality, contrast, session, date, echo and channel (`_CT`, `_T1w`, `_scan2`,
   `pre`, `2020-01-31`, and `_0000` behind a number) with what follows them behind a number;
   capitals, leading zeros and the kind of separator do not count.

Scans that share a patient by one of these, or a StudyInstanceUID, show one patient: too few
patients are a nuisance, one too many spoils every score. Scans of which nothing is known show one.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from scipy.cluster.hierarchy import DisjointSet

from .discovery import stem, words_of

# Ways in which data sets name a patient, wherever in a path.
KNOWN_NAMES = re.compile(
    r"(?i)(?<![a-z0-9])("
    r"sub-[a-z0-9]+|IXI\d+|OAS\d_\d{4}|OAS\d{5}|\d{3}_S_\d{4}|TCGA-\w{2}-\w{4}|"
    r"BraTS-[a-z]+-\d{5})(?![a-z0-9])"
)
PATIENT_LIKE = re.compile(
    r"(?i)^(sub|subj|subject|pat|patient|pid|person|participant|proband|volunteer|case)"
    r"[-_ ]?[a-z]{0,3}\d"
)
SITE = re.compile(r"(?i)^(site|cent(er|re)|hospital|clinic|institut(e|ion)?|scanner|vendor)[-_ ]?")
GROUP = re.compile(
    r"(?i)^("
    r"train(ing)?|val|valid(ation)?|test(ing)?|images?(tr|ts|val)?|task[-_ ]?\d*\w?|"
    r"brain|head|neck|pelvis|thorax|abdomen|hn|hnc|ab|th|data|dataset\w*|raw(data)?|source(data)?|"
    r"derivatives|nifti|nii|dicom|dcm|scans?|volumes?|patients|subjects|people|cases|controls|"
    r"healthy|fold[-_ ]?\d+|group[-_ ]?\w+|batch[-_ ]?\w+|cohort[-_ ]?\w+|part[-_ ]?\d+|"
    r"original|processed|preprocessed|resampled|registered|defaced)$"
)

DATE = re.compile(
    r"(?<!\d)((19|20)\d\d[-_.]?(0[1-9]|1[0-2])[-_.]?([0-2]\d|3[01])|"
    r"([0-2]?\d|3[01])[-_.](0?[1-9]|1[0-2])[-_.](19|20)\d\d)(?!\d)"
)
YEAR = re.compile(r"(19|20)\d\d")
UID = re.compile(r"^\d+(\.\d+){4,}$")
COPY = re.compile(r"(?i)(\s*\(\d+\)|[-_ ]copy\d*)+$")

# Words about a scan, not about a patient.
SCAN_WORD = re.compile(
    r"(n|ce)?ct[ap]?|mr[ia]?|cbct|pet|suv|t1(w|c|ce|gd|n|km)?|t2(w|f|s)?|flair|pdw?|dwi|adc|swi|"
    r"tof|m?p2?rage|f?spgr|bravo|vibe|space|tse|stir|dti|bold|func|anat|perf|"
    r"ses(sion)?\d*|scan\d*|visit\d*|tp\d+|timepoint\d*|time\d+|day\d+|week\d+|month\d+|"
    r"baseline|bl|follow|followup\d*|fu\d*|pre|post|preop|postop|before|after|run\d*|rep\d*|"
    r"repeat\d*|retest|acq\d*|rec\d*|echo\d*|te\d+|"
    r"ax|axi|axial|tra|transversal|sag|sagittal|cor|coronal|bone|soft|kernel|thin|thick|native|"
    r"contrast|ce|gd|km|reg|registered|coreg|resampled|resliced|mni|n4|norm|normali[sz]ed|bias|"
    r"corr|corrected|stripped|bet|masked|defaced|iso|crop|cropped|final|copy|orig|original|raw|"
    r"denoised|image|img|volume|brain|head|skull|space|rigid|affine|warped|sct|synthetic"
)
# Words about a scan only behind a name with a number, such as `p1_e2`.
SCAN_WORD_BEHIND = re.compile(r"[evsm]\d+|im\d+|study\d*|exam\d*|series\d*|vol\d*|test|[abc]|up")
# What a number behind it counts, as in `ses-2`.
COUNTED_WORD = re.compile(
    r"ses|session|scan|visit|tp|timepoint|time|day|week|month|run|rep|repeat|"
    r"acq|rec|echo|te|followup|fu"
)
NUMBERED_MODALITY = re.compile(r"(?:ct|mri?)(\d+)")
CHANNEL = re.compile(r"000\d")

# Marks a key that links scans without naming a patient.
LINK = "link"

ANONYMOUS = re.compile(
    r"(?i)(anon[a-z]*|de[-_ ]?id[a-z]*|unknown|none|null|removed|hidden|patient|subject|person|"
    r"name|test|no[-_ ]?(id|name)|n/?a|[0x*?\-_.^ ]*)([-_^ ]*(anon[a-z]*|patient|name|id))*"
)


@dataclass(frozen=True)
class Evidence:
    """What is known of the patient in a scan.

    Args:
        parts: the path below the source; without the file's name where that says nothing, as in
            DICOM.
        has_file_name: whether the last part is a file's name.
        source: names the source; paths are only compared with care between sources.
        patient_id: of DICOM, "" if there is none.
        name_and_birth: likewise, ("", "") if there is none.
        study: the StudyInstanceUID, "" if there is none.
    """

    parts: tuple[str, ...]
    has_file_name: bool = True
    source: Hashable = ""
    patient_id: str = ""
    name_and_birth: tuple[str, str] = ("", "")
    study: str = ""


@dataclass(frozen=True)
class Patients:
    """The patients of some scans.

    Args:
        labels: a name for the patient of each scan, for comparison only.
        found_by: what each patient was found by, such as "PatientID".
    """

    labels: tuple[str, ...]
    found_by: tuple[str, ...]

    def sentence(self, scans: Sequence[int]) -> str:
        """How many people the scans with these numbers show, and how they were found."""
        found_by = {}
        for k in scans:
            found_by.setdefault(self.labels[k], self.found_by[k])

        counts = Counter(found_by.values())
        ways = ", ".join(f"{count} by {way}" for way, count in counts.most_common())
        if len(counts) == 1:
            [way] = counts
            ways = f"by {way}"
        return f"{people_in_words(len(found_by))} found: {ways}; --person REGEX to change"


@dataclass(frozen=True)
class PathName:
    """What a path says of its patient.

    Args:
        site: "" if it names none.
        label: the patient, "" if it names none.
        found_by: what named the patient, a folder or a file.
    """

    site: str
    label: str
    found_by: str

    @property
    def key(self) -> tuple[str, str]:
        """Scans with the same key show one patient."""
        return self.site, self.label


def people_in_words(number: int) -> str:
    """A count with its noun: 1 person, 2 people."""
    return f"{number} {'person' if number == 1 else 'people'}"


def find_patients(scans: Sequence[Evidence], pattern: str | None = None) -> Patients:
    """Find the patient of each scan, by the rule above.

    Args:
        scans: what is known of each.
        pattern: a regular expression that finds the patient in the path below the source.

    Raises:
        ValueError: the pattern is not a regular expression, or matches no part of a path.
    """
    if pattern is not None:
        labels = [matched_label(pattern, scan.parts) for scan in scans]
        return Patients(tuple(labels), ("--person",) * len(scans))

    identities = dicom_identities(scans)
    path_names = [name_in_path(scan) for scan in scans]
    labels = merged_labels(patient_keys(scans, identities, path_names))

    found_by = []
    for scan, identity, name in zip(scans, identities, path_names, strict=True):
        if identity:
            found_by.append("PatientID")
        elif is_anonymous(scan.patient_id):
            found_by.append(name.found_by)
        else:
            found_by.append(f"{name.found_by}, because all PatientIDs are equal")
    return Patients(tuple(labels), tuple(found_by))


def matched_label(pattern: str, parts: Sequence[str]) -> str:
    """What the user's pattern matches in a path."""
    path = "/".join(parts)
    try:
        match = re.search(pattern, path)
    except re.error as error:
        raise ValueError(f"--person {pattern} must be a regular expression ({error})") from None
    label = ""
    if match is not None:
        label = match[1] if match.re.groups else match[0]
    if not label:
        raise ValueError(
            f"--person {pattern} matches nothing in {path}: change it, or leave it out"
        )
    return label


def patient_keys(
    scans: Sequence[Evidence], identities: Sequence[str], path_names: Sequence[PathName]
) -> list[list[tuple[str, str]]]:
    """The keys by which each scan names its patient, the surest one first; see `merged_labels`."""
    # A name in a path also stands for a DICOM identity if the two always come together. That helps
    # only where another scan has nothing but this name.
    needed_keys = {name.key for name, identity in zip(path_names, identities) if not identity}
    identities_of_key = defaultdict(set)
    for scan, identity, name in zip(scans, identities, path_names):
        identities_of_key[scan.source, name.key].add(identity)
    several_studies = len({scan.study for scan in scans}) > 1

    all_keys = []
    for scan, identity, name in zip(scans, identities, path_names):
        keys = [("", identity)] if identity else [name.key]
        is_unique = identities_of_key[scan.source, name.key] == {identity}
        if identity and name.label and is_unique and name.key in needed_keys:
            keys.append(name.key)
        if scan.study and several_studies:
            keys.append((LINK, scan.study))
        all_keys.append(keys)
    return all_keys


def dicom_identities(scans: Sequence[Evidence]) -> list[str]:
    """What the DICOM tags say of each patient, "" where they say nothing."""
    identities = []
    for scan in scans:
        name, birth = scan.name_and_birth
        if not is_anonymous(scan.patient_id):
            identities.append(normalised_name(scan.patient_id))
        elif not is_anonymous(name):
            identities.append(f"{normalised_name(name)} {birth}")
        else:
            identities.append("")

    for source in {scan.source for scan in scans}:
        identified = [k for k, scan in enumerate(scans) if scan.source == source and identities[k]]
        all_equal = len({identities[k] for k in identified}) == 1
        if all_equal and not is_surely_one_patient([scans[k] for k in identified]):
            for k in identified:
                identities[k] = ""
    return identities


def is_surely_one_patient(scans: Sequence[Evidence]) -> bool:
    """Whether scans of one id lie in one folder, or share a name and a birth date."""
    if len({scan.parts for scan in scans}) == 1:
        return True
    name, birth = scans[0].name_and_birth
    share_both = len({scan.name_and_birth for scan in scans}) == 1
    return share_both and bool(birth) and not is_anonymous(name)


def is_anonymous(text: str) -> bool:
    """Whether an id or a name is one that anonymisers write for everybody; "" is."""
    return ANONYMOUS.fullmatch(text.strip()) is not None


def name_in_path(scan: Evidence) -> PathName:
    """The site and the patient that the path of a scan names."""
    site, candidates = "", {}
    for k, part in enumerate(scan.parts):
        is_file = scan.has_file_name and k == len(scan.parts) - 1
        found_by = "file name" if is_file else "folder"
        text = stem(part) if is_file else part

        known = KNOWN_NAMES.search(text)
        if known:
            return PathName(site, normalised_name(known[0]), found_by)
        if not is_file and SITE.match(text):
            site = normalised_name(text)
        elif is_file or not GROUP.match(text):
            label = patient_in(text)
            if label:
                is_year = not is_file and YEAR.fullmatch(label) is not None
                rank = (not PATIENT_LIKE.match(text), is_year, k)
                candidates[rank] = (label, found_by)

    if not candidates:
        return PathName(site, "", "nothing in their paths")
    label, found_by = candidates[min(candidates)]
    return PathName(site, label, found_by)


def patient_in(text: str) -> str:
    """What a folder or a file without ending is called, without the words about the scan."""
    text = COPY.sub("", text)
    if UID.match(text):
        return text

    kept, previous = [], ""
    for word in words_of(DATE.sub(" ", text)):
        counts_scans = word.isdigit() and COUNTED_WORD.fullmatch(previous)
        previous = word
        if counts_scans:
            continue

        has_number = has_digit(kept)
        numbered = NUMBERED_MODALITY.fullmatch(word)
        if SCAN_WORD.fullmatch(word) or (numbered and has_number):
            if has_number:
                break
        elif has_number and SCAN_WORD_BEHIND.fullmatch(word):
            break
        else:
            kept.append(numbered[1] if numbered else word)

    if has_digit(kept[:-1]) and CHANNEL.fullmatch(kept[-1]):
        kept.pop()
    return normalised_name(" ".join(kept))


def has_digit(words: Sequence[str]) -> bool:
    """Whether one of the words holds a digit."""
    return any(character.isdigit() for word in words for character in word)


def normalised_name(text: str) -> str:
    """A name without capitals, separators and leading zeros: "Patient_007" is "patient-7"."""
    text = unicodedata.normalize("NFKC", text).casefold()
    runs = re.findall(r"[^\W\d_]+|\d+", text)
    return "-".join(run.lstrip("0") or "0" if run.isdigit() else run for run in runs)


def merged_labels(keys: Sequence[Sequence[Hashable]]) -> list[str]:
    """A label for each scan, the same for scans that share a key, directly or through others.

    Args:
        keys: of each scan: pairs of a site ("" if unknown) and a name, the surest one first, or of
            `LINK` and anything that only scans of one patient share.
    """
    patients = DisjointSet(key for scan_keys in keys for key in scan_keys)
    for first, *more in keys:
        for key in more:
            patients.merge(first, key)

    # Without a site, a name may be that of anyone so called.
    for site, label in patients:
        if site and site != LINK and ("", label) in patients:
            patients.merge((site, label), ("", label))

    label_of = {}
    for linked_keys in patients.subsets():
        smallest = min(key for key in linked_keys if key[0] != LINK)
        label_of |= dict.fromkeys(linked_keys, " ".join(smallest).strip())
    return [label_of[scan_keys[0]] for scan_keys in keys]
